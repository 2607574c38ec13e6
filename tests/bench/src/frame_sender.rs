//! Sends raw frames for a limited time.

use std::{
    collections::HashMap,
    io::IoSlice,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    ifaddrs::{InterfaceAddress, getifaddrs},
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, sendmmsg, socket,
    },
};

use policy_testbed::network::NetworkNamespace;

/// Frames per system call.
const FRAMES_PER_CALL: usize = 64;

/// Sends frames from the calling thread.
pub(crate) struct FrameSender {
    socket: OwnedFd,
    interfaces: Vec<LinkAddr>,
}

impl FrameSender {
    /// Opens a sender on one interface of a namespace.
    pub(crate) fn open(namespace: &NetworkNamespace, interface: &str) -> Result<Self> {
        Self::open_all(namespace, &[interface.to_owned()])
    }

    /// Opens a sender on several interfaces, which take the frames in turns.
    pub(crate) fn open_all(namespace: &NetworkNamespace, interfaces: &[String]) -> Result<Self> {
        let _inside = namespace.enter()?;
        // Without a protocol, the socket receives nothing.
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .context("opening a packet socket")?;
        let addresses = getifaddrs().context("listing interfaces")?;
        let link = |address: InterfaceAddress| {
            Some((address.interface_name, *address.address?.as_link_addr()?))
        };
        let links: HashMap<String, LinkAddr> = addresses.filter_map(link).collect();
        let find = |name: &String| links.get(name).copied().with_context(|| format!("no {name}"));
        Ok(Self { socket, interfaces: interfaces.iter().map(find).collect::<Result<_>>()? })
    }

    /// Sends the frames in rotation until the time is over. Returns the number sent and the time
    /// taken.
    pub(crate) fn send_for(&self, frames: &[Vec<u8>], time: Duration) -> Result<(u64, Duration)> {
        let slices: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let turns = self.interfaces.iter().cycle().take(frames.len());
        let addresses: Vec<_> = turns.map(|interface| Some(*interface)).collect();
        let mut headers = MultiHeaders::preallocate(FRAMES_PER_CALL, None);
        let begin = Instant::now();
        let mut sent: u64 = 0;
        let batches = slices.chunks(FRAMES_PER_CALL).zip(addresses.chunks(FRAMES_PER_CALL));
        for (batch, addresses) in batches.cycle() {
            let fd = self.socket.as_raw_fd();
            let result = sendmmsg(fd, &mut headers, batch, addresses, [], MsgFlags::empty());
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
