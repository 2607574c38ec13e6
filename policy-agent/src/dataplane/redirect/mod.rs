//! The redirect: listeners that take connections over for the egress proxy, and the routing that
//! delivers to them.

pub(crate) mod redirect_listeners;
pub(crate) mod redirect_routing;
