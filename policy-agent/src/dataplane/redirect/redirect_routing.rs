//! The routing rules that deliver redirected packets locally, whatever their destination. In each
//! family:
//!
//! ```text
//! 96: from all iif lo fwmark 0x70610001 lookup main
//! 97: from all fwmark 0x70610001 lookup 28769
//! table 28769: local default dev lo
//! ```
//!
//! The first rule is for the return path. If a host considers marks there (`src_valid_mark`, or a
//! firewall's reverse path filter), the kernel looks up the route to the sandbox with the packet's
//! mark, but as if for a packet from the host itself. With only the second rule it would find the
//! sandbox on `lo` and drop the packet as spoofed. The first rule avoids having to change sysctls.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    pin::pin,
};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use nix::net::if_::if_nametoindex;
use policy_common::redirect::{
    REDIRECT_MARK, REDIRECT_ROUTE_TABLE, REDIRECT_RULE_PRIORITY, RETURN_RULE_PRIORITY,
};
use rtnetlink::{
    Error, Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        link::LinkFlags,
        route::{RouteHeader, RouteMessage, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

use crate::{
    dataplane::net::{netlink, netns::NetnsHandle},
    policy::LOOPBACK_INTERFACE,
};

/// Errors for a rule, route or family that does not exist.
const ABSENT_ERRNOS: [i32; 4] = [libc::ENOENT, libc::ESRCH, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];

/// Installs the local delivery of redirected packets in a namespace. Existing rules and routes are
/// kept.
pub(crate) fn install_redirect(namespace: &NetnsHandle, v6: bool) -> Result<()> {
    with_netlink_in(namespace, async |netlink| {
        let loopback =
            if_nametoindex(LOOPBACK_INTERFACE).context("there is no loopback interface")?;
        bring_up(&netlink, loopback).await.context("cannot bring up the loopback interface")?;
        for family in address_families(v6) {
            let added = netlink.route().add(local_route(family, loopback)).execute().await;
            was_applied(added, &[libc::EEXIST]).context("cannot add a local route")?;
            for rule in redirect_rules(family) {
                let mut request = netlink.rule().add();
                *request.message_mut() = rule;
                let added = request.execute().await;
                was_applied(added, &[libc::EEXIST]).context("cannot add a routing rule")?;
            }
        }
        Ok(())
    })
}

/// Removes everything that was installed. Succeeds if there is nothing.
pub(crate) fn remove_redirect(namespace: &NetnsHandle) -> Result<()> {
    with_netlink_in(namespace, async |netlink| {
        for family in address_families(true) {
            for rule in redirect_rules(family) {
                while was_applied(netlink.rule().del(rule.clone()).execute().await, &ABSENT_ERRNOS)
                    .context("cannot remove a routing rule")?
                {}
            }
            let loopback =
                if_nametoindex(LOOPBACK_INTERFACE).context("there is no loopback interface")?;
            let removed = netlink.route().del(local_route(family, loopback)).execute().await;
            was_applied(removed, &ABSENT_ERRNOS).context("cannot remove a local route")?;
        }
        Ok(())
    })
}

/// Runs `work` with a netlink socket in a namespace.
fn with_netlink_in(
    namespace: &NetnsHandle,
    work: impl AsyncFnOnce(Handle) -> Result<()> + Send,
) -> Result<()> {
    namespace.run_inside(|| netlink::with_handle(work))
}

/// Brings an interface up, if it is down.
async fn bring_up(netlink: &Handle, index: u32) -> Result<()> {
    let mut links = pin!(netlink.link().get().match_index(index).execute());
    let link = links.try_next().await?.context("it is gone")?;
    if !link.header.flags.contains(LinkFlags::Up) {
        netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    }
    Ok(())
}

fn address_families(v6: bool) -> impl Iterator<Item = AddressFamily> {
    [AddressFamily::Inet].into_iter().chain(v6.then_some(AddressFamily::Inet6))
}

fn local_route(family: AddressFamily, loopback: u32) -> RouteMessage {
    let is_v4 = family == AddressFamily::Inet;
    let mut route = if is_v4 {
        let route = RouteMessageBuilder::<Ipv4Addr>::new();
        route
            .scope(RouteScope::Host)
            .output_interface(loopback)
            .table_id(REDIRECT_ROUTE_TABLE)
            .build()
    } else {
        let route = RouteMessageBuilder::<Ipv6Addr>::new();
        route.output_interface(loopback).table_id(REDIRECT_ROUTE_TABLE).build()
    };
    route.header.kind = RouteType::Local;
    route
}

fn redirect_rules(family: AddressFamily) -> [RuleMessage; 2] {
    let way_back = RuleAttribute::Iifname(LOOPBACK_INTERFACE.to_owned());
    [
        redirect_rule(
            family,
            RETURN_RULE_PRIORITY,
            RouteHeader::RT_TABLE_MAIN.into(),
            Some(way_back),
        ),
        redirect_rule(family, REDIRECT_RULE_PRIORITY, REDIRECT_ROUTE_TABLE, None),
    ]
}

fn redirect_rule(
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
        RuleAttribute::FwMark(REDIRECT_MARK),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(table),
    ];
    rule.attributes.extend(selector);
    rule
}

/// Whether a request was applied. The errors in `needless` mean that it was not needed.
fn was_applied(result: Result<(), Error>, needless: &[i32]) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if netlink::is_refusal(&error, needless) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
