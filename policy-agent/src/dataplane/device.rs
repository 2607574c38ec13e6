//! What stands between the host's own stack and an interface: a bridge takes its ports' frames before
//! the stack sees them, and is the device by which the host itself sends to what is behind a port.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkGetRequest,
    packet_route::{
        link::{InfoPortKind, LinkAttribute, LinkInfo},
        route::{RouteAttribute, RouteType},
    },
};

use super::{Interface, netlink, netns, route::ask};

/// The device for an address that is behind `interface`, in the calling thread's network namespace.
/// It is the interface, unless that is a port: then it is the bridge (or bond), or what stands on it,
/// as a VLAN does, if the address is routed there. No other device leads to the sandbox.
///
/// # Errors
/// There is no such interface, or the kernel does not answer.
pub fn towards(interface: &str, address: IpAddr) -> Result<String> {
    netlink::speak(async |netlink| {
        let link = Link::read(netlink.link().get().match_name(interface.to_owned())).await;
        let link = link.with_context(|| format!("cannot find the interface {interface}"))?;
        let Some(controller) = link.controller else { return Ok(link.name) };
        let controller = by_index(&netlink, controller).await?;
        let Some(routed) = routed_to(&netlink, address).await else { return Ok(controller.name) };
        let routed = by_index(&netlink, routed).await?;
        let stands_on_it = routed.below == Some(controller.index);
        Ok(if stands_on_it { routed.name } else { controller.name })
    })
}

/// Whether something takes the frames of an interface: a bridge, a bond, Open vSwitch. A VRF does not,
/// it routes them.
///
/// # Errors
/// The namespace or the interface is not there.
pub fn is_port(interface: &Interface) -> Result<bool> {
    netns::within(interface.netns.as_deref(), || {
        netlink::speak(async |netlink| {
            let found = Link::read(netlink.link().get().match_name(interface.name.clone())).await;
            Ok(found?.controller.is_some())
        })
    })
}

struct Link {
    index: u32,
    name: String,
    /// The device that it is a port of, where that is who sends.
    controller: Option<u32>,
    /// The device that it stands on.
    below: Option<u32>,
}

impl Link {
    async fn read(request: LinkGetRequest) -> Result<Self> {
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
        let controller = controller.filter(|index| *index != 0 && !is_of_vrf(&link.attributes));
        Ok(Self { index: link.header.index, name: name.context("no name")?, controller, below })
    }
}

/// A port of a VRF sends and receives itself (Documentation/networking/vrf.rst).
fn is_of_vrf(attributes: &[LinkAttribute]) -> bool {
    attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::PortKind(InfoPortKind::Vrf)),
        _ => false,
    })
}

async fn by_index(netlink: &Handle, index: u32) -> Result<Link> {
    Link::read(netlink.link().get().match_index(index)).await
}

/// The index of the device that an address is routed to; `None`: it is routed nowhere.
async fn routed_to(netlink: &Handle, address: IpAddr) -> Option<u32> {
    let route = ask(netlink, address).await?;
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
        assert!(is_of_vrf(&[LinkAttribute::Controller(7), of(InfoPortKind::Vrf)]));
        assert!(!is_of_vrf(&[LinkAttribute::Controller(7), of(InfoPortKind::Bridge)]));
        assert!(!is_of_vrf(&[LinkAttribute::Controller(7)]));
    }

    #[test]
    fn the_loopback_interface_is_no_port() {
        let interface = |name: &str| Interface { name: name.to_owned(), netns: None };
        assert!(!is_port(&interface("lo")).expect("an interface"));
        assert!(is_port(&interface("nosuch0")).is_err());
    }
}
