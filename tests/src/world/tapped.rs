//! A sandbox whose programs sit behind a tap device, as those of a microVM do: what a virtual
//! machine monitor does, carrying frames between the host's tap device and the guest's network card,
//! a thread does here. The card is another tap device.

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
    Sandbox, World,
    sandbox::{INSIDE, mac_text},
    tap::{Virtio, open},
};

/// Bytes of the longest frame, with its virtio header.
const LONGEST: usize = 70_000;

/// Carries frames until it is dropped.
pub struct Carrier {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Adds a sandbox behind a tap device to a world's host.
pub fn sandbox(world: &World, virtio: Virtio) -> Result<(Sandbox, Carrier)> {
    let number = world.next_number();
    let sandbox = Sandbox::unlinked(number, &format!("tap{number}"))?;
    let (identity, interface) = (sandbox.identity, &sandbox.interface);
    let hosts = open(&world.host, interface, virtio)?;
    let guests = open(&sandbox.inside, INSIDE, virtio)?;
    world
        .host
        .ip(&format!("link set {interface} address {} up", mac_text(identity.gateway_mac())))?;
    sandbox.inside.ip(&format!(
        "link set {INSIDE} address {} up
         addr add {}/24 dev {INSIDE}
         addr add {}/64 dev {INSIDE} nodad",
        mac_text(identity.mac()),
        identity.v4(),
        identity.v6(),
    ))?;
    sandbox.route_to(&world.host)?;
    let ended = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&ended);
    let thread = thread::spawn(move || carry(&hosts, &guests, &until));
    Ok((sandbox, Carrier { ended, thread: Some(thread) }))
}

fn carry(one: &File, other: &File, ended: &AtomicBool) {
    let mut frame = vec![0; LONGEST];
    while !ended.load(Ordering::Relaxed) {
        let mut polled = [one, other].map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut polled, 50_u8);
        for (mut from, mut to) in [(one, other), (other, one)] {
            while let Ok(length) = from.read(&mut frame) {
                // A frame that cannot be delivered is lost, as on any wire.
                let _ = to.write(&frame[..length]);
            }
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
