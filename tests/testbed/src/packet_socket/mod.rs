//! Packet sockets, to send raw frames and to prove which frames crossed.
//!
//! A test proves without waiting that nothing crossed: it sends an allowed marker after the frames
//! in question. Once the marker has arrived, the frames would have arrived too.

mod frame_builder;
mod packet_view;

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};

pub use frame_builder::{FrameBuilder, SOURCE_PORT};
pub use packet_view::PacketView;

use crate::{network::NetworkNamespace, wait::WAIT_LIMIT};

/// Large enough for the frames that arrive while a test does other things.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;

/// A packet socket on one interface of a namespace.
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket, which receives the frames that arrive at the interface from now on.
    pub fn open(namespace: &NetworkNamespace, interface: &str) -> Result<Self> {
        let index = namespace.ifindex(interface)?;
        let _inside = namespace.enter()?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol, the socket receives nothing until it is bound to its interface.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .context("opening a packet socket")?;
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER_BYTES)
            .context("enlarging a receive buffer")?;
        ignore_outgoing(&socket).context("telling a packet socket not to hear its own side")?;
        bind_to_interface(&socket, index).with_context(|| format!("binding to {interface}"))?;
        Ok(Self { socket })
    }

    /// Opens a socket whose frames begin with a virtio header (`PACKET_VNET_HDR`); see
    /// [`with_partial_checksum`].
    pub fn open_with_virtio_header(namespace: &NetworkNamespace, interface: &str) -> Result<Self> {
        let wire = Self::open(namespace, interface)?;
        set_packet_option(&wire.socket, libc::PACKET_VNET_HDR)
            .context("asking for virtio headers")?;
        Ok(wire)
    }

    /// Sends a frame unchanged.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).context("sending a frame")?;
        Ok(())
    }

    /// Returns all frames up to the one that `is_marker` recognises, without that one.
    pub fn receive_until(&self, is_marker: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>> {
        let deadline = Instant::now() + *WAIT_LIMIT;
        let mut frames = Vec::new();
        while Instant::now() < deadline {
            match self.try_receive()? {
                Some(frame) if is_marker(&frame) => return Ok(frames),
                Some(frame) => frames.push(frame),
                None => self.wait_readable()?,
            }
        }
        let (waited, others) = (*WAIT_LIMIT, frames.len());
        bail!("the marker did not arrive within {waited:?}, but {others} other frames")
    }

    /// Returns the next queued frame, if any.
    pub fn try_receive(&self) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; 70_000];
        match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => frame.truncate(length),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno).context("reading from a packet socket"),
        }
        Ok(Some(frame))
    }

    fn wait_readable(&self) -> Result<()> {
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, 100_u8).context("polling a packet socket")?;
        Ok(())
    }
}

/// Returns whether a frame contains these bytes.
pub fn contains_bytes(frame: &[u8], bytes: &[u8]) -> bool {
    frame.windows(bytes.len()).any(|window| window == bytes)
}

/// A frame whose checksum the device must compute from byte `start` and write at `offset` from
/// there, in the format of [`PacketSocket::open_with_virtio_header`].
pub fn with_partial_checksum(frame: &[u8], start: u16, offset: u16) -> Vec<u8> {
    const NEEDS_CSUM: u8 = 1;
    let [a, b] = start.to_ne_bytes();
    let [c, d] = offset.to_ne_bytes();
    [&[NEEDS_CSUM, 0, 0, 0, 0, 0, a, b, c, d], frame].concat()
}

/// Makes the socket ignore outgoing frames.
fn ignore_outgoing(socket: &OwnedFd) -> io::Result<()> {
    set_packet_option(socket, libc::PACKET_IGNORE_OUTGOING)
}

/// Sets an option of packet sockets through libc, since nix has none of them.
#[expect(clippy::cast_possible_truncation, reason = "the size of an integer")]
fn set_packet_option(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let (fd, level) = (socket.as_raw_fd(), libc::SOL_PACKET);
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value outlives the call and has the given length.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const yes).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Binds through libc, since nix cannot build a `sockaddr_ll` with an interface index.
#[expect(
    clippy::cast_possible_truncation,
    reason = "constants that fit, and the size of a structure"
)]
fn bind_to_interface(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: plain integers and bytes, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the address outlives the call and has the given length.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
