//! Finds interfaces that carry a default route of their network namespace.

use std::pin::pin;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        route::{RouteAttribute, RouteMessage, RouteType},
    },
};

use crate::dataplane::{
    HostInterface,
    net::{netlink, netns},
};

/// Errors for a family that the kernel does not support.
const UNSUPPORTED_FAMILY_ERRNOS: [i32; 2] = [libc::EAFNOSUPPORT, libc::EOPNOTSUPP];

/// Whether a default route of the interface's network namespace, in any routing table, uses the
/// interface.
///
/// # Errors
/// The namespace does not exist, or the kernel does not return its routes.
pub fn carries_default_route(interface: &HostInterface) -> Result<bool> {
    netns::run_in_netns(interface.netns.as_deref(), || {
        let index = if_nametoindex(interface.name.as_str())
            .with_context(|| format!("there is no interface {}", interface.name))?;
        netlink::with_strict_handle(async |netlink| {
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                if has_default_route_via(&netlink, family, index).await? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    })
}

async fn has_default_route_via(
    netlink: &Handle,
    family: AddressFamily,
    index: u32,
) -> Result<bool> {
    let mut routes = pin!(netlink.route().get(route_request(family, index)).execute());
    loop {
        match routes.try_next().await {
            Ok(Some(route))
                if is_default_route(&route) && output_interfaces(&route).contains(&index) =>
            {
                return Ok(true);
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(false),
            // The kernel does not support this family.
            Err(error) if netlink::is_refusal(&error, &UNSUPPORTED_FAMILY_ERRNOS) => {
                return Ok(false);
            }
            Err(error) => return Err(error).context("cannot list the routes"),
        }
    }
}

/// Requests the routes of all tables that use an interface: a host may have a million others.
fn route_request(family: AddressFamily, index: u32) -> RouteMessage {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.attributes.push(RouteAttribute::Oif(index));
    question
}

/// A route to everything, or to one half of it, as VPNs configure them.
fn is_default_route(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unicast && route.header.destination_prefix_length <= 1
}

/// The output interfaces of a route.
fn output_interfaces(route: &RouteMessage) -> Vec<u32> {
    let of_attribute = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(of_attribute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_default_route_leads_out_by_the_loopback_interface() {
        let loopback = HostInterface { name: "lo".to_owned(), netns: None };
        assert!(!carries_default_route(&loopback).expect("routes"));
        let missing = HostInterface { name: "nosuch0".to_owned(), netns: None };
        assert!(carries_default_route(&missing).is_err());
    }
}
