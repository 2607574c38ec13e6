//! Link events of the agent's own network namespace. An interface that appears under a sandbox's
//! name is attached immediately, and not only at the next scan.
//!
//! Other namespaces are only scanned. A socket in a namespace would keep it, and what is in it,
//! alive after its deletion.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

// From linux/rtnetlink.h and linux/if_link.h.
const RTMGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
/// Size of `struct nlmsghdr` in bytes.
const NLMSG_HEADER_LEN: usize = 16;
/// Size of `struct nlmsghdr` and the `struct ifinfomsg` after it, in bytes.
const LINK_HEADER_LEN: usize = NLMSG_HEADER_LEN + 16;

/// Returns the names of interfaces that are added or changed from now on, in batches. Names may be
/// missing if too many events arrive at once. A dedicated thread receives the events.
///
/// # Errors
/// The kernel provides no link events to this process.
pub(super) fn watch_links() -> Result<UnboundedReceiver<Vec<String>>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
    let (sender, receiver) = unbounded_channel();
    thread::Builder::new()
        .name("links".to_owned())
        .spawn(move || receive_loop(&socket, &sender))?;
    Ok(receiver)
}

fn receive_loop(socket: &OwnedFd, sender: &UnboundedSender<Vec<String>>) {
    let mut buffer = [0; 32 * 1024];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) if sender.send(parse_link_names(&buffer[..length])).is_err() => return,
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
            Err(_) => return, // dropping the sender ends the stream
        }
    }
}

/// Parses the interface names in a batch of messages, up to the first malformed message.
fn parse_link_names(mut messages: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((kind, message, rest)) = next_message(messages) {
        if kind == RTM_NEWLINK
            && let Some(name) = message.get(LINK_HEADER_LEN..).and_then(parse_ifname)
        {
            names.push(name);
        }
        messages = rest;
    }
    names
}

fn next_message(messages: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*messages.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*messages.get(4..)?.first_chunk()?);
    let message = messages.get(..length).filter(|message| message.len() >= NLMSG_HEADER_LEN)?;
    Some((kind, message, messages.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn parse_ifname(mut attributes: &[u8]) -> Option<String> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..length)?;
        if kind == IFLA_IFNAME {
            let text = value.split(|byte| *byte == 0).next()?;
            return String::from_utf8(text.to_owned()).ok();
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(LINK_HEADER_LEN + attributes.len()).expect("short");
        let mut message = vec![0; LINK_HEADER_LEN];
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(attributes);
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).expect("short");
        let mut attribute = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        attribute.extend_from_slice(value);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    #[test]
    fn new_links_are_named() {
        let tap = [attribute(9, &[1, 2, 3]), attribute(IFLA_IFNAME, b"tap0\0")].concat();
        let veth = attribute(IFLA_IFNAME, b"veth1\0");
        let gone = message(17, &veth);
        let batch = [message(RTM_NEWLINK, &tap), gone, message(RTM_NEWLINK, &veth)].concat();
        assert_eq!(parse_link_names(&batch), ["tap0", "veth1"]);
    }

    #[test]
    fn what_is_malformed_is_no_name() {
        let whole = message(RTM_NEWLINK, &attribute(IFLA_IFNAME, b"tap0\0"));
        for length in 0..whole.len() {
            assert!(parse_link_names(&whole[..length]).is_empty(), "{length}");
        }
        assert!(parse_link_names(&[0; 64]).is_empty());
        assert!(parse_link_names(&message(RTM_NEWLINK, &[0; 8])).is_empty());
    }
}
