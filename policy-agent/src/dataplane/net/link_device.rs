//! Devices between the host's stack and an interface. A bridge takes frames from its ports before
//! the stack receives them, and the host sends to hosts behind a port through the bridge device.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkGetRequest,
    packet_route::{
        AddressFamily,
        link::{InfoPortKind, LinkAttribute, LinkInfo},
        route::{RouteAttribute, RouteType},
    },
};

use crate::dataplane::{
    HostInterface,
    net::{netlink, netns, route_lookup::lookup_route},
};

/// The device for an address behind `interface`, in the calling thread's network namespace. This is
/// the interface itself unless it is a port. Then it is the bridge (or bond), or a device on top of
/// that, such as a VLAN, if the address is routed there. No other device leads to the sandbox.
///
/// # Errors
/// The interface does not exist, or the kernel does not reply.
pub fn device_towards(interface: &str, address: IpAddr) -> Result<String> {
    netlink::with_handle(async |netlink| {
        let link =
            NetworkLink::fetch_link(netlink.link().get().match_name(interface.to_owned())).await;
        let link = link.with_context(|| format!("cannot find the interface {interface}"))?;
        let Some(controller) = link.controller else { return Ok(link.name) };
        let controller = link_by_index(&netlink, controller).await?;
        let Some(routed) = route_device(&netlink, address).await else {
            return Ok(controller.name);
        };
        let routed = link_by_index(&netlink, routed).await?;
        let stands_on_it = routed.lower_device == Some(controller.index);
        Ok(if stands_on_it { routed.name } else { controller.name })
    })
}

/// Whether another device takes the frames of an interface: a bridge, a bond or Open vSwitch. A VRF
/// does not, because it routes them.
///
/// # Errors
/// The namespace or the interface does not exist.
pub(crate) fn is_bridge_port(interface: &HostInterface) -> Result<bool> {
    netns::run_in_netns(interface.netns.as_deref(), || {
        netlink::with_handle(async |netlink| {
            let found =
                NetworkLink::fetch_link(netlink.link().get().match_name(interface.name.clone()))
                    .await;
            Ok(found?.controller.is_some())
        })
    })
}

/// The ports of all bridges in the calling thread's network namespace.
///
/// # Errors
/// The kernel does not reply.
pub(crate) fn bridge_ports() -> Result<Vec<String>> {
    netlink::with_handle(async |netlink| {
        let mut request = netlink.link().get();
        request.message_mut().header.interface_family = AddressFamily::Bridge;
        let mut links = std::pin::pin!(request.execute());
        let mut names = Vec::new();
        while let Some(link) = links.try_next().await? {
            names.extend(link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            }));
        }
        Ok(names)
    })
}

struct NetworkLink {
    index: u32,
    name: String,
    /// The device that it is a port of, if that device sends its frames.
    controller: Option<u32>,
    /// The device that it is stacked on.
    lower_device: Option<u32>,
}

impl NetworkLink {
    async fn fetch_link(request: LinkGetRequest) -> Result<Self> {
        let mut answers = std::pin::pin!(request.execute());
        let link = answers.try_next().await?.context("it is gone")?;
        let find =
            |wanted: fn(&LinkAttribute) -> Option<u32>| link.attributes.iter().find_map(wanted);
        let controller = find(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        });
        let below = find(|attribute| match attribute {
            LinkAttribute::Link(index) => Some(*index),
            _ => None,
        });
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let controller = controller.filter(|index| *index != 0 && !is_vrf_port(&link.attributes));
        Ok(Self {
            index: link.header.index,
            name: name.context("no name")?,
            controller,
            lower_device: below,
        })
    }
}

/// A port of a VRF sends and receives by itself (Documentation/networking/vrf.rst).
fn is_vrf_port(attributes: &[LinkAttribute]) -> bool {
    attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::PortKind(InfoPortKind::Vrf)),
        _ => false,
    })
}

async fn link_by_index(netlink: &Handle, index: u32) -> Result<NetworkLink> {
    NetworkLink::fetch_link(netlink.link().get().match_index(index)).await
}

/// The index of the device that an address is routed to. `None` if there is no route.
async fn route_device(netlink: &Handle, address: IpAddr) -> Option<u32> {
    let route = lookup_route(netlink, address).await?;
    let device = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    device.filter(|_| route.header.kind == RouteType::Unicast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vrf_takes_no_frames() {
        let of = |kind| LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(kind)]);
        assert!(is_vrf_port(&[LinkAttribute::Controller(7), of(InfoPortKind::Vrf)]));
        assert!(!is_vrf_port(&[LinkAttribute::Controller(7), of(InfoPortKind::Bridge)]));
        assert!(!is_vrf_port(&[LinkAttribute::Controller(7)]));
    }

    #[test]
    fn the_loopback_interface_is_no_port() {
        let interface = |name: &str| HostInterface { name: name.to_owned(), netns: None };
        assert!(!is_bridge_port(&interface("lo")).expect("an interface"));
        assert!(is_bridge_port(&interface("nosuch0")).is_err());
    }
}
