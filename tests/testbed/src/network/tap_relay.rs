//! A sandbox whose programs are behind a tap device, like those of a microVM. A thread takes the
//! role of the virtual machine monitor: it copies frames between the host's tap device and the
//! guest's network card. That card is another tap device.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, poll};

use super::{
    NetworkNamespace, Sandbox, TestNetwork,
    sandbox::{SANDBOX_INTERFACE, format_mac},
    tap_device::{VirtioHeader, open_tap},
};

/// The length of the longest frame in bytes, with its virtio header.
const MAX_FRAME_BYTES: usize = 70_000;

/// Relays frames until it is dropped.
pub struct FrameRelay {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Adds a sandbox behind a tap device to the host of a test network.
pub fn add_sandbox_behind_tap(
    world: &TestNetwork,
    virtio: VirtioHeader,
) -> Result<(Sandbox, FrameRelay)> {
    let number = world.next_number();
    let sandbox = Sandbox::without_link(number, &format!("tap{number}"))?;
    let (identity, interface) = (sandbox.addressing, &sandbox.interface);
    let relay = connect_taps((&world.host, interface), &sandbox.namespace, virtio)?;
    world.host.ip_batch(&format!(
        "link set {interface} address {} up",
        format_mac(identity.gateway_mac())
    ))?;
    sandbox.namespace.ip_batch(&format!(
        "link set {SANDBOX_INTERFACE} address {} up
         addr add {}/24 dev {SANDBOX_INTERFACE}
         addr add {}/64 dev {SANDBOX_INTERFACE} nodad",
        format_mac(identity.mac()),
        identity.v4(),
        identity.v6(),
    ))?;
    sandbox.route_through(&world.host)?;
    Ok((sandbox, relay))
}

/// Relays frames between a tap device, which is made if there is none, and the card of a guest, a
/// namespace.
pub fn connect_taps(
    (host, interface): (&NetworkNamespace, &str),
    guest: &NetworkNamespace,
    virtio: VirtioHeader,
) -> Result<FrameRelay> {
    let hosts = open_tap(host, interface, virtio)?;
    let guests = open_tap(guest, SANDBOX_INTERFACE, virtio)?;
    let ended = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&ended);
    let thread = thread::spawn(move || relay_frames(&hosts, &guests, &until));
    Ok(FrameRelay { stopped: ended, thread: Some(thread) })
}

fn relay_frames(one: &File, other: &File, ended: &AtomicBool) {
    let mut frame = vec![0; MAX_FRAME_BYTES];
    while !ended.load(Ordering::Relaxed) {
        let mut polled = [one, other].map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut polled, 50_u8);
        for (mut from, mut to) in [(one, other), (other, one)] {
            while let Ok(length) = from.read(&mut frame) {
                // A frame that cannot be delivered is lost.
                let _ = to.write(&frame[..length]);
            }
        }
    }
}

impl Drop for FrameRelay {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
