//! Parses link messages of rtnetlink, and tells which of them can concern the agent.
//!
//! A link that only goes up or down, or gets another address, keeps its gates. A container that
//! changes its end of a veth without a pause causes such messages by the thousand.

use std::collections::HashMap;

// From linux/rtnetlink.h, linux/if_link.h and linux/socket.h.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const AF_BRIDGE: u8 = 7;
/// Size of `struct nlmsghdr` in bytes.
const NLMSG_HEADER_LEN: usize = 16;
/// Size of `struct nlmsghdr` and the `struct ifinfomsg` after it, in bytes.
const LINK_HEADER_LEN: usize = NLMSG_HEADER_LEN + 16;
/// Offset of `ifi_index` in a message.
const INDEX_OFFSET: usize = NLMSG_HEADER_LEN + 4;

/// The links that exist, as far as they have been reported, by their indexes.
#[derive(Default)]
pub(super) struct KnownLinks(HashMap<u32, LinkIdentity>);

/// What decides which sandbox a link belongs to, and whether packets for the proxy can be
/// redirected there.
#[derive(PartialEq, Eq)]
struct LinkIdentity {
    name: String,
    /// The index of the bridge or bond that takes its frames.
    controller: Option<u32>,
}

impl KnownLinks {
    /// Forgets all links, after messages were lost.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the names of those links in a batch of messages that are new, or have another name or
    /// controller. Stops at the first malformed message.
    pub(super) fn changed_names(&mut self, mut messages: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        while let Some((kind, message, rest)) = next_message(messages) {
            names.extend(self.changed_name(kind, message));
            messages = rest;
        }
        names
    }

    fn changed_name(&mut self, kind: u16, message: &[u8]) -> Option<String> {
        let index = u32::from_ne_bytes(*message.get(INDEX_OFFSET..)?.first_chunk()?);
        match kind {
            RTM_NEWLINK => {
                let identity = LinkIdentity::parse(message.get(LINK_HEADER_LEN..)?)?;
                if self.0.get(&index) == Some(&identity) {
                    return None;
                }
                let name = identity.name.clone();
                self.0.insert(index, identity);
                Some(name)
            }
            // A port that leaves its bridge is deleted there only.
            RTM_DELLINK if *message.get(NLMSG_HEADER_LEN)? != AF_BRIDGE => {
                self.0.remove(&index);
                None
            }
            _ => None,
        }
    }
}

impl LinkIdentity {
    fn parse(mut attributes: &[u8]) -> Option<Self> {
        let (mut name, mut controller) = (None, None);
        while let Some(length) = attributes.first_chunk() {
            let length = usize::from(u16::from_ne_bytes(*length));
            let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
            let value = attributes.get(4..length)?;
            match kind {
                IFLA_IFNAME => {
                    let text = value.split(|byte| *byte == 0).next()?;
                    name = Some(String::from_utf8(text.to_owned()).ok()?);
                }
                IFLA_MASTER => controller = Some(u32::from_ne_bytes(*value.first_chunk()?)),
                _ => {}
            }
            attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(Self { name: name?, controller })
    }
}

fn next_message(messages: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*messages.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*messages.get(4..)?.first_chunk()?);
    let message = messages.get(..length).filter(|message| message.len() >= NLMSG_HEADER_LEN)?;
    Some((kind, message, messages.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(LINK_HEADER_LEN + attributes.len()).expect("short");
        let mut message = vec![0; LINK_HEADER_LEN];
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[NLMSG_HEADER_LEN] = family;
        message[INDEX_OFFSET..INDEX_OFFSET + 4].copy_from_slice(&index.to_ne_bytes());
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

    fn new_link(index: u32, name: &str) -> Vec<u8> {
        message(RTM_NEWLINK, 0, index, &attribute(IFLA_IFNAME, format!("{name}\0").as_bytes()))
    }

    #[test]
    fn new_links_are_named() {
        let tap = [attribute(9, &[1, 2, 3]), attribute(IFLA_IFNAME, b"tap0\0")].concat();
        let batch = [
            message(RTM_NEWLINK, 0, 1, &tap),
            message(RTM_DELLINK, 0, 3, &attribute(IFLA_IFNAME, b"veth1\0")),
            new_link(2, "veth1"),
        ];
        assert_eq!(KnownLinks::default().changed_names(&batch.concat()), ["tap0", "veth1"]);
    }

    #[test]
    fn a_link_is_named_again_when_it_is_another() {
        let mut known = KnownLinks::default();
        let mut names = |message: Vec<u8>| known.changed_names(&message);
        assert_eq!(names(new_link(1, "tap0")), ["tap0"]);
        assert!(names(new_link(1, "tap0")).is_empty(), "up, down, or another address");
        assert_eq!(names(new_link(1, "aside")), ["aside"]);
        assert_eq!(names(new_link(1, "tap0")), ["tap0"], "renamed back");
        assert!(names(message(RTM_DELLINK, 0, 1, &[])).is_empty());
        assert_eq!(names(new_link(1, "tap0")), ["tap0"], "made again with the same index");
        let port = [attribute(IFLA_IFNAME, b"tap0\0"), attribute(IFLA_MASTER, &[9, 0, 0, 0])];
        assert_eq!(names(message(RTM_NEWLINK, 0, 1, &port.concat())), ["tap0"], "a bridge's port");
        assert!(names(message(RTM_DELLINK, AF_BRIDGE, 1, &[])).is_empty());
        assert!(names(message(RTM_NEWLINK, 0, 1, &port.concat())).is_empty(), "still known");
        known.clear();
        assert_eq!(known.changed_names(&new_link(1, "tap0")), ["tap0"], "after an overrun");
    }

    #[test]
    fn what_is_malformed_is_no_name() {
        let names = |bytes: &[u8]| KnownLinks::default().changed_names(bytes);
        let whole = new_link(1, "tap0");
        for length in 0..whole.len() {
            assert!(names(&whole[..length]).is_empty(), "{length}");
        }
        assert!(names(&[0; 64]).is_empty());
        assert!(names(&message(RTM_NEWLINK, 0, 1, &[0; 8])).is_empty());
    }
}
