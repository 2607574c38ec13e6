//! Line 1 of the precedence for the frame: IEEE 802.3, 802.1Q, 802.1ad.

use crate::OracleReason;

use crate::MacAddr;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The EtherTypes of customer tags, of provider tags, and of the older double tags.
const VLAN_ETHERTYPES: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// The header of a frame, and its payload.
pub(crate) struct EthernetHeader<'a> {
    pub source: MacAddr,
    pub ethertype: u16,
    pub payload: &'a [u8],
}

impl<'a> EthernetHeader<'a> {
    pub(crate) fn parse(frame: &'a [u8]) -> Result<Self, OracleReason> {
        let (header, payload) = frame.split_at_checked(14).ok_or(OracleReason::Malformed)?;
        let ethertype = u16::from_be_bytes([header[12], header[13]]);
        if VLAN_ETHERTYPES.contains(&ethertype) {
            return Err(OracleReason::Vlan);
        }
        let source = [header[6], header[7], header[8], header[9], header[10], header[11]];
        Ok(Self { source, ethertype, payload })
    }
}
