//! The interface inside of a container's network namespace. Its processes can change what is read
//! here, so it may be trusted only before they start.

use std::{net::IpAddr, path::Path};

use anyhow::{Result, bail, ensure};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    address::AddressMessage,
    link::{LinkAttribute, LinkMessage},
};

use crate::{
    dataplane::net::{host_addresses::local_address, netlink, netns::run_in_netns},
    policy::MacAddress,
};

/// An interface whose other end is in another network namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct NamespaceInterface {
    /// Its addresses, without those of the link alone.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
}

impl NamespaceInterface {
    /// Reads the only such interface in the network namespace at `path`.
    ///
    /// # Errors
    /// There is none, or there are several; it has no address; or the kernel does not reply.
    pub fn only_one_in(path: &Path) -> Result<Self> {
        run_in_netns(Some(path), || {
            netlink::with_handle(async |netlink| {
                let links: Vec<LinkMessage> = netlink.link().get().execute().try_collect().await?;
                let mut paired = links.iter().filter(|link| has_end_elsewhere(link));
                let (Some(link), None) = (paired.next(), paired.next()) else {
                    bail!("the container has not exactly one interface");
                };
                let messages: Vec<AddressMessage> =
                    netlink.address().get().execute().try_collect().await?;
                let index = link.header.index;
                let own = messages.iter().filter(|message| message.header.index == index);
                let addresses = own.filter_map(local_address).map(|net| net.addr());
                let addresses: Vec<_> = addresses.filter(|it| !is_link_local(*it)).collect();
                ensure!(!addresses.is_empty(), "the container's interface has no address yet");
                Ok(Self { addresses, mac: mac_address(link) })
            })
        })
    }
}

fn has_end_elsewhere(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)))
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn mac_address(link: &LinkMessage) -> Option<MacAddress> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => MacAddress::from_octets(bytes.as_slice().try_into().ok()?),
        _ => None,
    })
}
