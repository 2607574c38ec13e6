//! An Ethernet frame, and methods to modify it.

use std::fmt;

use super::{MacAddr, test_hosts};

/// Length of the Ethernet header.
pub const ETHERNET_HEADER_LEN: usize = 14;

/// An Ethernet frame, without preamble and check sequence.
#[derive(Clone, PartialEq, Eq)]
pub struct EthernetFrame(Vec<u8>);

impl EthernetFrame {
    /// A frame from the sandbox to its gateway.
    pub fn new(ethertype: u16, payload: &[u8]) -> Self {
        let ethertype = ethertype.to_be_bytes();
        Self([&test_hosts::GATEWAY.mac[..], &test_hosts::SANDBOX.mac, &ethertype, payload].concat())
    }

    /// A frame of arbitrary bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Sets the source MAC.
    pub fn with_source(self, mac: MacAddr) -> Self {
        self.with_bytes_at(6, &mac)
    }

    /// Sets the destination MAC.
    pub fn with_destination(self, mac: MacAddr) -> Self {
        self.with_bytes_at(0, &mac)
    }

    /// Overwrites the bytes at `offset`.
    pub fn with_bytes_at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Inserts bytes at `offset`.
    pub fn with_inserted(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0.splice(offset..offset, bytes.iter().copied());
        self
    }

    /// Inserts a VLAN tag into the frame itself, where no device strips it.
    pub fn with_vlan_tag(self, protocol: u16, vlan: u16) -> Self {
        let tag = [protocol.to_be_bytes(), vlan.to_be_bytes()].concat();
        self.with_inserted(12, &tag)
    }

    /// Keeps the first `length` bytes.
    pub fn truncated(mut self, length: usize) -> Self {
        self.0.truncate(length);
        self
    }

    /// Appends bytes that belong to no header.
    pub fn padded(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

impl fmt::Debug for EthernetFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
