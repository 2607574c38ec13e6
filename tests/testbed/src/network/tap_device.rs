//! A sandbox behind a tap device, like a microVM. The test itself is the guest: it reads and writes
//! the frames of the virtual machine's network card.

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
    NetworkNamespace, TestNetwork,
    sandbox::{SandboxAddressing, format_mac},
};
use crate::wait::WAIT_LIMIT;

/// The length of the header that virtio adds before each frame (`struct virtio_net_hdr`).
pub const VIRTIO_HEADER_LEN: usize = 10;

/// Whether frames have a virtio header, which lets a guest leave checksums and segmentation to the
/// host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtioHeader {
    /// Frames without a header.
    Off,
    /// A header before each frame.
    On,
}

/// The guest's end of a tap device.
pub struct TapDevice {
    /// Addresses and names. The interface is `tap<number>`.
    pub addressing: SandboxAddressing,
    /// The name of the host's interface.
    pub interface: String,
    device: File,
    virtio_header: VirtioHeader,
}

impl TapDevice {
    /// Adds a guest to the host of a test network.
    pub fn create(world: &TestNetwork, virtio: VirtioHeader) -> Result<Self> {
        let identity = SandboxAddressing { number: world.next_number() };
        let interface = format!("tap{}", identity.number);
        let device = open_tap(&world.host, &interface, virtio)?;
        world.host.ip_batch(&format!(
            "link set {interface} address {}
             addr add {}/24 dev {interface}
             addr add {}/64 dev {interface} nodad
             link set {interface} up",
            format_mac(identity.gateway_mac()),
            identity.gateway_v4(),
            identity.gateway_v6(),
        ))?;
        Ok(Self { addressing: identity, interface, device, virtio_header: virtio })
    }

    /// Sends a frame, with an empty virtio header if the device uses one.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.send_with_header([0; VIRTIO_HEADER_LEN], frame)
    }

    /// Sends a frame with a virtio header. Without virtio, the header is omitted.
    pub fn send_with_header(&self, header: [u8; VIRTIO_HEADER_LEN], frame: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(VIRTIO_HEADER_LEN + frame.len());
        if self.virtio_header == VirtioHeader::On {
            bytes.extend_from_slice(&header);
        }
        bytes.extend_from_slice(frame);
        (&self.device).write_all(&bytes).context("writing a frame to the tap device")
    }

    /// Returns the next frame from the host that satisfies `wanted`, with its virtio header (zero
    /// without virtio). Skips other frames.
    pub fn receive(
        &self,
        what: &str,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<([u8; VIRTIO_HEADER_LEN], Vec<u8>)> {
        let deadline = Instant::now() + *WAIT_LIMIT;
        while Instant::now() < deadline {
            match self.try_receive()? {
                Some((header, frame)) if wanted(&frame) => return Ok((header, frame)),
                Some(_) => {}
                None => self.wait_readable()?,
            }
        }
        bail!("the guest waited {:?} in vain for {what}", *WAIT_LIMIT)
    }

    fn try_receive(&self) -> Result<Option<([u8; VIRTIO_HEADER_LEN], Vec<u8>)>> {
        let mut bytes = vec![0; 70_000];
        match (&self.device).read(&mut bytes) {
            Ok(length) => bytes.truncate(length),
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => return Ok(None),
            Err(error) => return Err(error).context("reading a frame from the tap device"),
        }
        let mut header = [0; VIRTIO_HEADER_LEN];
        if self.virtio_header == VirtioHeader::On {
            let frame = bytes.split_off(VIRTIO_HEADER_LEN.min(bytes.len()));
            header.copy_from_slice(&bytes);
            bytes = frame;
        }
        Ok(Some((header, bytes)))
    }

    fn wait_readable(&self) -> Result<()> {
        let mut polled = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::from(100_u8)).context("polling the tap device")?;
        Ok(())
    }
}

/// Creates the device inside `host`. It disappears when its last descriptor is closed.
pub(super) fn open_tap(
    host: &NetworkNamespace,
    interface: &str,
    virtio: VirtioHeader,
) -> Result<File> {
    let _inside = host.enter()?;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("opening /dev/net/tun: is the kernel module `tun` loaded?")?;
    let offload = if virtio == VirtioHeader::On { libc::IFF_VNET_HDR } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | offload;
    // SAFETY: the structure is plain integers and bytes, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags)?;
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result).with_context(|| format!("making the tap device {interface}"))?;
    Ok(device)
}
