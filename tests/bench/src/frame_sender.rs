//! Sends raw frames for a limited time.

use std::{
    io::IoSlice,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, sendmmsg, socket,
    },
};

use policy_testbed::network::NetworkNamespace;

/// Frames per system call.
const FRAMES_PER_CALL: usize = 64;

/// Sends frames on one interface from the calling thread.
pub(crate) struct FrameSender {
    socket: OwnedFd,
    interface: LinkAddr,
}

impl FrameSender {
    /// Opens a sender in a namespace.
    pub(crate) fn open(namespace: &NetworkNamespace, interface: &str) -> Result<Self> {
        let _inside = namespace.enter()?;
        // Without a protocol, the socket receives nothing.
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .context("opening a packet socket")?;
        let addresses = getifaddrs().context("listing interfaces")?;
        let mut links = addresses.filter(|address| address.interface_name == interface);
        let link = links.find_map(|address| address.address?.as_link_addr().copied());
        let interface = link.with_context(|| format!("there is no {interface}"))?;
        Ok(Self { socket, interface })
    }

    /// Sends the frames in rotation until the time is over. Returns the number sent and the time
    /// taken.
    pub(crate) fn send_for(&self, frames: &[Vec<u8>], time: Duration) -> Result<(u64, Duration)> {
        let slices: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let addresses = vec![Some(self.interface); FRAMES_PER_CALL];
        let mut headers = MultiHeaders::preallocate(FRAMES_PER_CALL, None);
        let begin = Instant::now();
        let mut sent: u64 = 0;
        for batch in slices.chunks(FRAMES_PER_CALL).cycle() {
            let fd = self.socket.as_raw_fd();
            let result = sendmmsg(fd, &mut headers, batch, &addresses, [], MsgFlags::empty());
            sent += match result {
                Ok(results) => results.count() as u64,
                Err(Errno::ENOBUFS) => 0, // the queue is full
                Err(errno) => return Err(errno).context("sending frames"),
            };
            if begin.elapsed() >= time {
                break;
            }
        }
        Ok((sent, begin.elapsed()))
    }
}
