//! The redirect: listeners that take connections over for the egress proxy, and the routing that
//! delivers to them.

pub mod redirect_listeners;
pub mod redirect_routing;
