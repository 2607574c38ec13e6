//! Looks up routes in the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::{Handle, RouteMessageBuilder, packet_route::route::RouteMessage};

/// The route to an address. `None` if there is none.
pub(in crate::dataplane) async fn lookup_route(
    netlink: &Handle,
    address: IpAddr,
) -> Option<RouteMessage> {
    let question = match address {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
        IpAddr::V6(v6) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build()
        }
    };
    let mut answers = Box::pin(netlink.route().get(question).execute());
    answers.try_next().await.ok().flatten()
}
