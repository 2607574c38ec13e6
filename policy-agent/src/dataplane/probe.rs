//! Runs a packet through the programs of a sandbox, without an interface, to see what they decide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail};
use aya::{TestRun as _, TestRunOptions};

use super::{Dataplane, EndpointAddresses, Slot};
use crate::policy::evaluate::{FlowDestination, IPPROTO_UDP};

/// What a gate returns for a packet that passes: continue with the next program.
const TC_ACT_UNSPEC: u32 = u32::MAX;
/// The discard service (RFC 863). Packets to it have no special meaning.
const DISCARD_PORT: u16 = 9;
/// A MAC address of nobody: locally administered, unicast.
const ANY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const UDP_HEADER_LEN: u16 = 8;
/// The length of a frame. Shorter ones are padded on the wire.
const FRAME_LEN: usize = 64;

/// A datagram from a sandbox. It is never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePacket {
    mac: [u8; 6],
    source: IpAddr,
    destination: IpAddr,
}

impl ProbePacket {
    /// A datagram from the sandbox with these addresses. `None` if it has none of the destination's
    /// family.
    #[must_use]
    pub fn new(identity: &EndpointAddresses, destination: IpAddr) -> Option<Self> {
        let is_same_family = |source: &&IpAddr| source.is_ipv4() == destination.is_ipv4();
        let source = *identity.addresses.iter().find(is_same_family)?;
        Some(Self { mac: identity.mac.unwrap_or(ANY_MAC), source, destination })
    }

    /// What a policy judges.
    #[must_use]
    pub const fn destination(&self) -> FlowDestination {
        FlowDestination {
            address: self.destination,
            protocol: IPPROTO_UDP,
            port: Some(DISCARD_PORT),
            host: None,
        }
    }

    /// Ethernet, IP and an empty datagram.
    fn to_frame(self) -> Result<Vec<u8>> {
        let mut frame = [ANY_MAC, self.mac].concat();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(ETHERTYPE_IPV4);
                frame.extend(ipv4_header(source, destination));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(ETHERTYPE_IPV6);
                frame.extend(ipv6_header(source, destination));
            }
            _ => bail!("the addresses of a packet have one family"),
        }
        let [port, length] = [DISCARD_PORT, UDP_HEADER_LEN].map(u16::to_be_bytes);
        frame.extend([port, port, length, [0, 0]].as_flattened());
        frame.resize(frame.len().max(FRAME_LEN), 0);
        Ok(frame)
    }
}

/// RFC 791, 3.1, without options.
fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + UDP_HEADER_LEN).to_be_bytes());
    (header[8], header[9]) = (64, IPPROTO_UDP);
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(folded + (folded >> 16)) & 0xffff;
    header[10..12].copy_from_slice(&checksum.to_be_bytes()[2..]);
    header
}

/// RFC 8200, 3.
fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr) -> [u8; 40] {
    let mut header = [0; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&UDP_HEADER_LEN.to_be_bytes());
    (header[6], header[7]) = (IPPROTO_UDP, 64);
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
    header
}

impl Dataplane {
    /// Runs a packet from the sandbox in a slot through gates of that slot, and returns whether it
    /// would pass. The packet is counted and reported like any other.
    ///
    /// # Errors
    /// The kernel cannot load or run the gate.
    pub fn probe(&self, slot: Slot, packet: ProbePacket) -> Result<bool> {
        let frame = packet.to_frame()?;
        let mut gates = self.load_slot_gates(slot)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        let result = gates.load_from_sandbox()?.test_run(options).context("BPF_PROG_TEST_RUN")?;
        Ok(result.return_value == TC_ACT_UNSPEC)
    }

    /// Whether the guard watches the interface with this pin name. `None` if it is off.
    pub fn is_guarded(&self, id: &str) -> Result<Option<bool>> {
        self.interface_guard.is_guarded(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_an_ipv4_header_fits() {
        let header = ipv4_header([192, 0, 2, 1].into(), [198, 51, 100, 7].into());
        let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn a_packet_has_an_address_of_the_sandbox() {
        let identity =
            EndpointAddresses { mac: None, addresses: vec!["2001:db8::2".parse().expect("one")] };
        assert_eq!(ProbePacket::new(&identity, [192, 0, 2, 1].into()), None);
        let destination = "2001:db8:1::1".parse().expect("an address");
        let packet = ProbePacket::new(&identity, destination).expect("a packet");
        assert_eq!(packet.to_frame().expect("a frame").len(), FRAME_LEN);
    }
}
