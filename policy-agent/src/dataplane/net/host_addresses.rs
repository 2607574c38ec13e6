//! The host's own addresses in a network namespace. A sandbox behind an interface in that namespace
//! may not reach them unless the operator allows it.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::{Stream, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::{
    Error, Handle,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    },
};

use crate::dataplane::net::{netlink, netns::run_in_netns};

/// `RT_TABLE_LOCAL` (linux/rtnetlink.h): the routes to the host itself. The kernel adds them, and
/// operators do so for whole prefixes (AnyIP).
const LOCAL_TABLE: u8 = 255;
/// Errors for a table that does not exist yet, or a family that the kernel does not support.
const ABSENT_ERRNOS: [i32; 3] = [libc::ENOENT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];

/// The addresses of all interfaces and the prefixes routed to the host itself, including broadcast
/// and anycast, in ascending order. `netns` is the path of the namespace. `None` means that of the
/// calling thread.
///
/// # Errors
/// The namespace does not exist, or the kernel does not reply.
pub fn host_addresses(netns: Option<&Path>) -> Result<Vec<IpNet>> {
    let mut found = run_in_netns(netns, || {
        netlink::with_strict_handle(async |netlink| {
            let mut found = Vec::new();
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                found.extend(local_routes(&netlink, family).await?);
            }
            // A VRF has its own table, so the local table lacks its addresses.
            found.extend(interface_addresses(&netlink).await?);
            Ok(found)
        })
    })
    .context("cannot ask for the host's own addresses")?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The prefixes that one family's local table delivers to the host. Strict checking makes the
/// kernel skip all other tables, which may be long.
async fn local_routes(netlink: &Handle, family: AddressFamily) -> Result<Vec<IpNet>> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.header.table = LOCAL_TABLE;
    let routes = collect_or_empty(netlink.route().get(question).execute()).await?;
    Ok(routes.iter().filter_map(local_prefix).collect())
}

/// The prefix of a route that delivers to the host.
fn local_prefix(route: &RouteMessage) -> Option<IpNet> {
    let kinds = [RouteType::Local, RouteType::Broadcast, RouteType::Anycast];
    if route.header.table != LOCAL_TABLE || !kinds.contains(&route.header.kind) {
        return None;
    }
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    });
    let destination = destination.or(match route.header.address_family {
        AddressFamily::Inet => Some(std::net::Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(std::net::Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    })?;
    IpNet::new(destination, route.header.destination_prefix_length).ok()
}

async fn interface_addresses(netlink: &Handle) -> Result<Vec<IpNet>> {
    let messages = collect_or_empty(netlink.address().get().execute()).await?;
    Ok(messages.iter().filter_map(local_address).collect())
}

/// The host's address. On a point-to-point link, `Address` is the peer's.
pub(super) fn local_address(message: &AddressMessage) -> Option<IpNet> {
    let local = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    };
    let address = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    };
    let attributes = &message.attributes;
    let found = attributes.iter().find_map(local);
    found.or_else(|| attributes.iter().find_map(address)).map(IpNet::from)
}

/// Collects all messages. Empty if the table or family does not exist.
async fn collect_or_empty<T>(answers: impl Stream<Item = Result<T, Error>>) -> Result<Vec<T>> {
    match answers.try_collect().await {
        Err(error) if netlink::is_refusal(&error, &ABSENT_ERRNOS) => Ok(Vec::new()),
        answers => Ok(answers?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_knows_its_loopback_addresses() {
        let own = host_addresses(None).expect("the kernel answers");
        let loopback: IpNet = "127.0.0.0/8".parse().expect("a net");
        assert!(own.contains(&loopback), "{own:?}");
        assert!(own.is_sorted());
        assert!(host_addresses(Some(Path::new("/nonexistent"))).is_err());
    }
}
