//! The hand-over of connections to the egress proxy, end to end in the kernel and without a proxy:
//! real sockets in a sandbox, and the test itself at the door.

mod connection_reuse;
mod foreign_sockets;
mod redirect_delivery;
mod redirect_refusal;
mod redirect_testbed;
mod routing_rules;
