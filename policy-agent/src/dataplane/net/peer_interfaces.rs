//! The interfaces whose other end is in another network namespace, such as the host's ends of a
//! container's interfaces.

use std::os::fd::{AsFd, AsRawFd as _, RawFd};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
        nsid::{NsidAttribute, NsidMessage},
    },
};

use crate::dataplane::net::netlink;

/// The interfaces in the calling thread's network namespace whose other end is in this namespace.
/// The host alone decides them, whatever the processes there do.
///
/// # Errors
/// The file is no network namespace, or the kernel does not reply.
pub fn interfaces_towards(namespace: impl AsFd) -> Result<Vec<String>> {
    let namespace = namespace.as_fd();
    netlink::with_handle(async |netlink| {
        // Listing the links gives the namespaces of their other ends an ID.
        let links: Vec<LinkMessage> = netlink.link().get().execute().try_collect().await?;
        let id = namespace_id(&netlink, namespace.as_raw_fd()).await?;
        Ok(links.iter().filter_map(|link| name_towards(link, id?)).collect())
    })
}

/// The ID that this network namespace has for another one. `None` if it has none.
async fn namespace_id(netlink: &Handle, namespace: RawFd) -> Result<Option<i32>> {
    let mut question = NsidMessage::default();
    question.attributes.push(NsidAttribute::Fd(namespace.cast_unsigned()));
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
    message.header.flags = NLM_F_REQUEST;
    let mut answers = std::pin::pin!(netlink.clone().request(message)?);
    let answer = answers.next().await.context("the kernel does not reply")?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) => {
            Ok(answer.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                _ => None,
            }))
        }
        NetlinkPayload::Error(error) => {
            Err(error.to_io()).context("the file is no network namespace")
        }
        _ => Ok(None),
    }
}

/// The name of a link, if its other end is in the namespace with this ID.
fn name_towards(link: &LinkMessage, id: i32) -> Option<String> {
    let attributes = &link.attributes;
    if !attributes.contains(&LinkAttribute::LinkNetNsId(id)) {
        return None;
    }
    attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}
