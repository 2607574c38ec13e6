//! Attaching gates to interfaces: tcx links, which are pinned, or clsact filters, which the
//! kernel keeps by itself; and XDP in addition where that is wanted.
//!
//! The gates of an attached interface are replaced in place, without a moment in which a packet
//! passes by.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::MapInfo,
    programs::{
        LinkOrder, ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::TcAttachOptions,
    },
    util::KernelVersion,
};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use policy_common::name::TC_PROGRAMS;

use super::{
    AttachMethod, Interface, Mode, Slot, bpf, filters,
    gate::Gates,
    netns,
    pins::{self, Pins},
};

/// Names of pins: of links, or with clsact of the programs themselves.
const FROM: &str = "from";
const TO: &str = "to";
const XDP: &str = "xdp";

/// Attaches gates.
pub struct Attacher {
    gates: Gates,
    pins: Pins,
    tcx: bool,
    xdp: bool,
}

impl Attacher {
    /// An attacher with the method that the settings ask for and the kernel has.
    pub fn new(pins: Pins, method: AttachMethod, mode: Mode) -> Result<Self> {
        let kernel_has_tcx =
            KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0));
        let tcx = match method {
            AttachMethod::Auto => kernel_has_tcx,
            AttachMethod::Tcx if kernel_has_tcx => true,
            AttachMethod::Tcx => bail!("dataplane.attach: \"tcx\" needs Linux 6.6; use \"clsact\""),
            AttachMethod::Clsact => false,
        };
        Ok(Self { gates: Gates::new(&pins), pins, tcx, xdp: mode == Mode::Xdp })
    }

    /// The gates' loader.
    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// Attaches the gates of `slot` to the interface, or puts them in place of those that are
    /// attached for the same sandbox.
    pub fn attach(&self, id: &str, slot: Slot, interface: &Interface) -> Result<()> {
        self.pins.create_links(id)?;
        self.pins.forget_slot(id)?;
        let mut gate = self.gates.open(slot)?;
        netns::within(interface.netns.as_deref(), || {
            check(&interface.name)?;
            let name = &interface.name;
            if self.xdp {
                self.attach_xdp(id, name, gate.xdp()?)?;
            }
            let from = gate.from_sandbox()?;
            self.attach_tc(id, name, TcAttachType::Ingress, from)?;
            let to = gate.to_sandbox()?;
            self.attach_tc(id, name, TcAttachType::Egress, to)?;
            if self.tcx {
                filters::remove(name);
            }
            Ok(())
        })?;
        if !self.xdp {
            self.pins.remove_link(id, XDP)?;
        }
        self.pins.note_slot(id, slot)
    }

    /// Whether the gates of `slot` are attached to the interface, in front of everybody else's
    /// programs, and call what is pinned now.
    pub fn is_attached(&self, id: &str, slot: Slot, interface: &Interface) -> Result<bool> {
        if self.pins.slot(id)? != Some(slot) {
            return Ok(false);
        }
        if self.xdp != self.pins.link(id, XDP).exists() {
            return Ok(false);
        }
        let tables = MapInfo::from_pin(self.pins.map(TC_PROGRAMS))?.id();
        netns::within(interface.netns.as_deref(), || {
            let attached = |pin, hook| {
                let gate = self.first_of_ours(&self.pins.link(id, pin), &interface.name, hook);
                gate.is_some_and(|gate| calls_through(&gate, tables))
            };
            Ok(attached(FROM, TcAttachType::Ingress) && attached(TO, TcAttachType::Egress))
        })
    }

    /// Takes the gates off. With clsact the interface has to be known.
    pub fn detach(&self, id: &str, interface: Option<&Interface>) -> Result<()> {
        if let Some(interface) = interface
            && !self.tcx
        {
            filters::detach(interface);
        }
        self.pins.remove_links(id)
    }

    fn attach_tc(
        &self,
        id: &str,
        interface: &str,
        hook: TcAttachType,
        gate: &mut SchedClassifier,
    ) -> Result<()> {
        let name = if hook == TcAttachType::Ingress { FROM } else { TO };
        let pin = self.pins.link(id, name);
        if !self.tcx {
            filters::attach(interface, hook, gate)?;
            self.pins.remove_link(id, name)?;
            return pins::pin(gate.fd()?.as_fd(), &pin);
        }
        if self.first_of_ours(&pin, interface, hook).is_some() {
            let link: FdLink = PinnedLink::from_pin(pin)?.into();
            let replaced = gate.attach_to_link(link.try_into()?)?;
            drop(gate.take_link(replaced)?);
            return Ok(());
        }
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = gate
            .attach_with_options(interface, hook, order)
            .with_context(|| format!("interface: cannot attach to {interface}"))?;
        // The old pin goes after the new gate is attached: its gate may be behind another program, or
        // belong to an interface that is gone or has been given to another sandbox.
        self.pins.remove_link(id, name)?;
        let link: FdLink = gate.take_link(link)?.try_into()?;
        self.pin(&link, id, name)
    }

    /// The program of a pin, if it is the first of the interface's hook: one in front of it could let
    /// packets pass without asking.
    fn first_of_ours(
        &self,
        pin: &Path,
        interface: &str,
        hook: TcAttachType,
    ) -> Option<ProgramInfo> {
        if !self.tcx {
            let program = ProgramInfo::from_pin(pin).ok()?;
            let first = filters::first_program(interface, hook).ok()?;
            return (first == Some(program.id())).then_some(program);
        }
        let link: FdLink = PinnedLink::from_pin(pin).ok()?.into();
        let program = link.info().ok()?.program_id();
        let (_, programs) = SchedClassifier::query_tcx(interface, hook).ok()?;
        programs.into_iter().next().filter(|first| first.id() == program)
    }

    fn attach_xdp(&self, id: &str, interface: &str, gate: &mut Xdp) -> Result<()> {
        // The old link may be on another interface, and an interface has room for one. A moment
        // without early drop lets nothing pass: the gates at TC decide.
        self.pins.remove_link(id, XDP)?;
        let link = gate
            .attach(interface, XdpMode::default())
            .with_context(|| format!("interface: cannot attach XDP to {interface}"))?;
        let link: FdLink = gate.take_link(link)?.try_into()?;
        self.pin(&link, id, XDP)
    }

    /// aya's own pinning gives the link up when it fails, and its gate with it.
    fn pin(&self, link: &FdLink, id: &str, name: &str) -> Result<()> {
        let link = bpf::link(link.info()?.id())?;
        pins::pin(link.as_fd(), &self.pins.link(id, name))
    }
}

/// The interface exists and is one that the programs can judge.
fn check(interface: &str) -> Result<()> {
    if if_nametoindex(interface).is_err() {
        bail!("interface: there is no {interface} in this network namespace");
    }
    let kind = hardware_type(interface)
        .with_context(|| format!("interface: cannot ask what {interface} is"))?;
    if kind != libc::ARPHRD_ETHER {
        bail!("interface: {interface} carries no Ethernet frames; use a veth or a tap");
    }
    Ok(())
}

/// The `ARPHRD_*` of an interface in this network namespace (netdevice(7)).
fn hardware_type(interface: &str) -> Result<u16> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: integers and byte arrays, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1))
    {
        *place = byte.cast_signed();
    }
    // SAFETY: the request is an ifreq with a terminated name, which the call reads and fills in.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    if result != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the call succeeded, so this member is the one that it filled in.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

/// Whether a gate calls through this table. One whose pin was removed while no agent ran goes on
/// enforcing, and nobody can change what.
fn calls_through(gate: &ProgramInfo, table: u32) -> bool {
    gate.map_ids().is_ok_and(|maps| maps.is_some_and(|maps| maps.contains(&table)))
}
