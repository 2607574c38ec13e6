//! The redirect of connections to the egress proxy, end to end in the kernel: real sockets in a
//! sandbox, with the test itself as the proxy.

mod connection_reuse;
mod foreign_sockets;
mod redirect_delivery;
mod redirect_refusal;
mod redirect_testbed;
mod routing_rules;
