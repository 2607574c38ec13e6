//! Internet checksums (RFC 1071) of replies.

use aya_ebpf::helpers::bpf_csum_diff;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::reply_frame::last_bytes;
use crate::constant_length::length_as_u32;

/// The pseudo header included in the TCP checksum. The order of the addresses does not affect the
/// sum.
#[inline(always)]
pub(super) fn pseudo_header_v4(ip: &[u8; Ipv4Hdr::LEN], protocol: u8, length: u8) -> [u8; 12] {
    let mut pseudo = [0; 12];
    pseudo[0..8].copy_from_slice(&ip[12..20]);
    pseudo[9] = protocol;
    pseudo[11] = length;
    pseudo
}

/// The sum of the IPv6 pseudo header.
#[inline(always)]
pub(super) fn pseudo_header_sum_v6(
    ip: &[u8; Ipv6Hdr::LEN],
    protocol: u8,
    length: u8,
) -> Option<u32> {
    checksum_partial_sum(
        &[0, 0, 0, length, 0, 0, 0, protocol],
        checksum_partial_sum(last_bytes::<_, 32>(ip), 0)?,
    )
}

/// The 32-bit one's-complement sum of `words`, added to `seed`.
#[inline(always)]
pub(super) fn checksum_partial_sum<const N: usize>(words: &[u8; N], seed: u32) -> Option<u32> {
    const { assert!(N.is_multiple_of(4)) };
    let to = words.as_ptr().cast_mut().cast();
    // SAFETY: the buffer has N bytes; the helper only reads it.
    let sum =
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, to, const { length_as_u32(N) }, seed) };
    u32::try_from(sum).ok()
}

/// Folds a 32-bit one's-complement sum to 16 bits.
#[inline(always)]
pub(super) fn fold_checksum(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
    let sum = twice as u16;
    sum
}
