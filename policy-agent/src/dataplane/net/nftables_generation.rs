//! The generation of nftables in the calling thread's network namespace, which every change of its
//! tables increments. Asking for it is much cheaper than starting `nft`.
//!
//! Source: the kernel's `include/uapi/linux/netfilter/nf_tables.h`.

use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

const NLM_F_REQUEST: u16 = 1;
/// `NFT_MSG_GETGEN` of the subsystem `NFNL_SUBSYS_NFTABLES`.
const GET_GENERATION: u16 = 10 << 8 | 16;
/// A `struct nlmsghdr` and a `struct nfgenmsg`.
const REQUEST_BYTES: usize = 20;
/// The first attribute of the answer, `NFTA_GEN_ID`: 32 bits, after the header of the attribute.
const GENERATION_OFFSET: usize = REQUEST_BYTES + 4;

/// Asks the kernel.
pub(crate) fn nftables_generation() -> Result<u32> {
    let kind = (AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC);
    let netlink = socket(kind.0, kind.1, kind.2, SockProtocol::NetlinkNetFilter)?;
    let mut request = [0; REQUEST_BYTES];
    request[..4].copy_from_slice(&20_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&GET_GENERATION.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let generation = answer[..length].get(GENERATION_OFFSET..GENERATION_OFFSET + 4);
    let bytes = generation.and_then(|bytes| bytes.try_into().ok());
    Ok(u32::from_be_bytes(bytes.context("nftables does not tell its generation")?))
}
