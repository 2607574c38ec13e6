//! The doors through which the kernel hands connections to the egress proxy: a listener per sandbox
//! and family, in the network namespace of the sandbox's interface, and the routing rules that make
//! the kernel deliver locally what is handed over.

use std::net::TcpListener;

/// The listeners that a sandbox's connections come out of. The local address of an accepted
/// connection is where the sandbox wanted to go. Not blocking. A door that is dropped is shut.
#[derive(Debug)]
pub struct Door {
    /// IPv4.
    pub v4: Option<TcpListener>,
    /// IPv6; `None` where the namespace has no IPv6.
    pub v6: Option<TcpListener>,
}
