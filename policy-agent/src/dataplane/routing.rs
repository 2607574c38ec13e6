//! The routing rules that make the kernel deliver locally what is handed over, whatever its
//! destination. In each family:
//!
//! ```text
//! 96: from all iif lo fwmark 0x70610001 lookup main
//! 97: from all fwmark 0x70610001 lookup 28769
//! table 28769: local default dev lo
//! ```
//!
//! The first is for the way back. Where a host lets marks count for it (`src_valid_mark`, or a
//! firewall's reverse path filter), the kernel asks with the mark of the packet, but as if for a
//! packet from the host itself, where the sandbox is; with the second rule alone it would find it on
//! `lo`, and drop the packet as spoofed. So no sysctl need be changed.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    pin::pin,
};

use super::{netlink, netns::Namespace};
use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use nix::net::if_::if_nametoindex;
use policy_common::hand_over::{MARK, RETURN_PRIORITY, RULE_PRIORITY, TABLE};
use rtnetlink::{
    Error, Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        link::LinkFlags,
        route::{RouteHeader, RouteMessage, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

/// There is no such rule, no such route, or no such family.
const ABSENT: [i32; 4] = [libc::ENOENT, libc::ESRCH, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];

/// The loopback interface.
const LOOPBACK: &str = "lo";

/// Has a namespace deliver locally what is handed over. What is there already stays.
pub fn establish(namespace: &Namespace, v6: bool) -> Result<()> {
    inside(namespace, async |netlink| {
        let loopback = if_nametoindex(LOOPBACK).context("there is no loopback interface")?;
        raise(&netlink, loopback).await.context("cannot bring up the loopback interface")?;
        for family in families(v6) {
            let added = netlink.route().add(route(family, loopback)).execute().await;
            done(added, &[libc::EEXIST]).context("cannot add a local route")?;
            for rule in rules(family) {
                let mut request = netlink.rule().add();
                *request.message_mut() = rule;
                let added = request.execute().await;
                done(added, &[libc::EEXIST]).context("cannot add a routing rule")?;
            }
        }
        Ok(())
    })
}

/// Removes all that was established. It is no error if nothing was.
pub fn remove(namespace: &Namespace) -> Result<()> {
    inside(namespace, async |netlink| {
        for family in families(true) {
            for rule in rules(family) {
                while done(netlink.rule().del(rule.clone()).execute().await, &ABSENT)
                    .context("cannot remove a routing rule")?
                {}
            }
            let loopback = if_nametoindex(LOOPBACK).context("there is no loopback interface")?;
            let removed = netlink.route().del(route(family, loopback)).execute().await;
            done(removed, &ABSENT).context("cannot remove a local route")?;
        }
        Ok(())
    })
}

/// Runs `work` in a namespace with a netlink socket.
fn inside(
    namespace: &Namespace,
    work: impl AsyncFnOnce(Handle) -> Result<()> + Send,
) -> Result<()> {
    namespace.enter(|| netlink::speak(work))
}

/// Brings an interface up, if it is down.
async fn raise(netlink: &Handle, index: u32) -> Result<()> {
    let mut links = pin!(netlink.link().get().match_index(index).execute());
    let link = links.try_next().await?.context("it is gone")?;
    if !link.header.flags.contains(LinkFlags::Up) {
        netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    }
    Ok(())
}

fn families(v6: bool) -> impl Iterator<Item = AddressFamily> {
    [AddressFamily::Inet].into_iter().chain(v6.then_some(AddressFamily::Inet6))
}

fn route(family: AddressFamily, loopback: u32) -> RouteMessage {
    let is_v4 = family == AddressFamily::Inet;
    let mut route = if is_v4 {
        let route = RouteMessageBuilder::<Ipv4Addr>::new();
        route.scope(RouteScope::Host).output_interface(loopback).table_id(TABLE).build()
    } else {
        let route = RouteMessageBuilder::<Ipv6Addr>::new();
        route.output_interface(loopback).table_id(TABLE).build()
    };
    route.header.kind = RouteType::Local;
    route
}

fn rules(family: AddressFamily) -> [RuleMessage; 2] {
    let way_back = RuleAttribute::Iifname(LOOPBACK.to_owned());
    [
        rule(family, RETURN_PRIORITY, RouteHeader::RT_TABLE_MAIN.into(), Some(way_back)),
        rule(family, RULE_PRIORITY, TABLE, None),
    ]
}

fn rule(
    family: AddressFamily,
    priority: u32,
    table: u32,
    selector: Option<RuleAttribute>,
) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(priority),
        RuleAttribute::FwMark(MARK),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(table),
    ];
    rule.attributes.extend(selector);
    rule
}

/// Whether a request was carried out. One that was not needed, as these errors say, is none.
fn done(result: Result<(), Error>, needless: &[i32]) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::NetlinkError(error)) if needless.contains(&-error.raw_code()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
