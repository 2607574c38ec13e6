//! A sandbox behind a tap device, as a microVM is. The test itself is the guest: it reads and
//! writes the frames that a virtual machine's network card would.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    os::unix::fs::OpenOptionsExt as _,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    Namespace, World,
    sandbox::{Identity, mac_text},
};
use crate::patience::PATIENCE;

/// Length of the header that virtio puts before each frame (`struct virtio_net_hdr`).
pub const VIRTIO_HEADER: usize = 10;

/// Whether frames carry a virtio header, with which a guest leaves checksums and segmentation to
/// the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtio {
    /// Bare frames.
    Off,
    /// A header before each frame.
    On,
}

/// The guest's end of a tap device.
pub struct Tap {
    /// Addresses and names; the interface is `tap<number>`.
    pub identity: Identity,
    /// The host's end.
    pub interface: String,
    device: File,
    virtio: Virtio,
}

impl Tap {
    /// Adds a guest to a world's host.
    pub fn plug_into(world: &World, virtio: Virtio) -> Result<Self> {
        let identity = Identity { number: world.next_number() };
        let interface = format!("tap{}", identity.number);
        let device = open(&world.host, &interface, virtio)?;
        world.host.ip(&format!(
            "link set {interface} address {}
             addr add {}/24 dev {interface}
             addr add {}/64 dev {interface} nodad
             link set {interface} up",
            mac_text(identity.gateway_mac()),
            identity.gateway_v4(),
            identity.gateway_v6(),
        ))?;
        Ok(Self { identity, interface, device, virtio })
    }

    /// Sends a frame, with an empty virtio header where one is needed.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.send_with([0; VIRTIO_HEADER], frame)
    }

    /// Sends a frame behind a virtio header; without virtio the header is left out.
    pub fn send_with(&self, header: [u8; VIRTIO_HEADER], frame: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(VIRTIO_HEADER + frame.len());
        if self.virtio == Virtio::On {
            bytes.extend_from_slice(&header);
        }
        bytes.extend_from_slice(frame);
        (&self.device).write_all(&bytes).context("writing a frame to the tap device")
    }

    /// The next frame from the host that satisfies `wanted`, with its virtio header (zero without
    /// virtio). Others are passed over.
    pub fn receive(
        &self,
        what: &str,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<([u8; VIRTIO_HEADER], Vec<u8>)> {
        let deadline = Instant::now() + *PATIENCE;
        while Instant::now() < deadline {
            match self.read()? {
                Some((header, frame)) if wanted(&frame) => return Ok((header, frame)),
                Some(_) => {}
                None => self.wait()?,
            }
        }
        bail!("the guest waited {:?} in vain for {what}", *PATIENCE)
    }

    fn read(&self) -> Result<Option<([u8; VIRTIO_HEADER], Vec<u8>)>> {
        let mut bytes = vec![0; 70_000];
        match (&self.device).read(&mut bytes) {
            Ok(length) => bytes.truncate(length),
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => return Ok(None),
            Err(error) => return Err(error).context("reading a frame from the tap device"),
        }
        let mut header = [0; VIRTIO_HEADER];
        if self.virtio == Virtio::On {
            let frame = bytes.split_off(VIRTIO_HEADER.min(bytes.len()));
            header.copy_from_slice(&bytes);
            bytes = frame;
        }
        Ok(Some((header, bytes)))
    }

    fn wait(&self) -> Result<()> {
        let mut polled = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::from(100_u8)).context("polling the tap device")?;
        Ok(())
    }
}

/// Makes the device inside `host`; it goes away with its last descriptor.
pub(super) fn open(host: &Namespace, interface: &str, virtio: Virtio) -> Result<File> {
    let _inside = host.enter()?;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("opening /dev/net/tun: is the kernel module `tun` loaded?")?;
    let offload = if virtio == Virtio::On { libc::IFF_VNET_HDR } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | offload;
    // SAFETY: the structure is plain integers and bytes, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags)?;
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which lives here.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result).with_context(|| format!("making the tap device {interface}"))?;
    Ok(device)
}
