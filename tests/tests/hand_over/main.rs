//! The hand-over of connections to the egress proxy, end to end in the kernel and without a proxy:
//! real sockets in a sandbox, and the test itself at the door.

mod delivery;
mod refusal;
mod reuse;
mod routing;
mod stage;
mod strangers;
