//! The UDP server: one thread echoes datagrams. Each address and port has its own socket, so that
//! replies come from the address that received the datagram.

use std::{
    net::{IpAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, poll};

/// Binds a socket for each address and port.
pub(crate) fn bind_sockets(addresses: &[IpAddr], ports: &[u16]) -> Result<Vec<UdpSocket>> {
    let mut sockets = Vec::new();
    for address in addresses {
        for port in ports {
            let socket = UdpSocket::bind((*address, *port))
                .with_context(|| format!("UDP {address} port {port}"))?;
            socket.set_nonblocking(true)?;
            sockets.push(socket);
        }
    }
    Ok(sockets)
}

/// Serves until `ended`.
pub(crate) fn serve(sockets: &[UdpSocket], ended: &AtomicBool) {
    let mut bytes = vec![0; 65_536];
    while !ended.load(Ordering::Relaxed) {
        let mut polled: Vec<_> =
            sockets.iter().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)).collect();
        if poll(&mut polled, 50_u8).is_err() {
            continue;
        }
        let ready = polled.iter().map(|polled| polled.any().unwrap_or(false));
        for (socket, _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
            while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
                // The peer may have closed its socket, which does not affect the server.
                let _ = socket.send_to(&bytes[..length], peer);
            }
        }
    }
}
