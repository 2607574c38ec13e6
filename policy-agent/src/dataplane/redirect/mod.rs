//! Redirection to the egress proxy: the listeners that accept sandbox connections, and the routing
//! that delivers packets to them.

pub(crate) mod redirect_listeners;
pub(crate) mod redirect_routing;
