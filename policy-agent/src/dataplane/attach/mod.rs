//! Attaches gates to interfaces: with tcx links, which are pinned, or clsact filters, which the
//! kernel keeps without pins. XDP is added if configured.
//!
//! The gates of an attached interface are replaced in place, so that no packet passes unjudged.

pub(crate) mod clsact;
mod context_cast;
pub(crate) mod expedited_rcu;
pub(crate) mod gate_loader;
mod installed_programs;
pub(crate) mod shared_programs;
mod slot_gates;

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::MapInfo,
    programs::{
        LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLinkId, TcAttachOptions},
    },
    sys::SyscallError,
};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use policy_common::bpf_names::TC_PROGRAMS;

use self::{
    expedited_rcu::{ExpeditedRcu, ExpeditedSection},
    gate_loader::GateLoader,
    slot_gates::{GateCopy, SlotGates},
};
use crate::{
    dataplane::{
        AttachMethod, DataplaneSettings, HookMode, HostInterface, Slot,
        features::TCX,
        maps::{
            bpf_syscall,
            pin_directory::{self, PinDirectory},
        },
        net::netns,
    },
    policy::ValidationError,
};

/// Names of pins. They refer to links, or with clsact to the programs themselves.
const FROM_PIN: &str = "from";
const TO_PIN: &str = "to";
const XDP_PIN: &str = "xdp";

/// Attaches gates.
pub(crate) struct GateAttacher {
    slot_gates: SlotGates,
    expedited_rcu: ExpeditedRcu,
    pin_directory: PinDirectory,
    use_tcx: bool,
    use_xdp: bool,
}

impl GateAttacher {
    /// Creates an attacher with the configured method, if the kernel supports it.
    pub(crate) fn new(pins: PinDirectory, settings: &DataplaneSettings) -> Result<Self> {
        let use_tcx = match settings.attach_method {
            AttachMethod::Auto => TCX.is_supported(),
            AttachMethod::Tcx if TCX.is_supported() => true,
            AttachMethod::Tcx => {
                bail!("dataplane.attach: \"tcx\" needs Linux {}; use \"clsact\"", TCX.since)
            }
            AttachMethod::Clsact => false,
        };
        Ok(Self {
            slot_gates: SlotGates::new(pins.clone()),
            expedited_rcu: ExpeditedRcu::new(&settings.bpffs, settings.expedite_rcu),
            pin_directory: pins,
            use_tcx,
            use_xdp: settings.mode == HookMode::Xdp,
        })
    }

    pub(crate) fn gate_loader(&self) -> &GateLoader {
        self.slot_gates.gate_loader()
    }

    /// Expedites grace periods until the section is dropped.
    pub(crate) fn expedite(&self) -> ExpeditedSection<'_> {
        self.expedited_rcu.enter()
    }

    /// Attaches the gates of `slot` to the interface, or replaces those that are attached for the
    /// same sandbox.
    pub(crate) fn attach_gates(
        &self,
        id: &str,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<()> {
        self.pin_directory.create_link_directory(id)?;
        self.pin_directory.clear_recorded_slot(id)?;
        let gates = &self.slot_gates;
        let _expedited = self.expedite();
        netns::run_in_netns(interface.netns.as_deref(), || {
            check_interface(&interface.name)?;
            let name = &interface.name;
            if self.use_xdp {
                self.attach_xdp(id, name, &mut gates.xdp(slot)?)?;
            }
            self.attach_tc(id, name, TcAttachType::Ingress, slot)?;
            self.attach_tc(id, name, TcAttachType::Egress, slot)?;
            if self.use_tcx {
                clsact::remove_own_filters(name);
            }
            Ok(())
        })?;
        if !self.use_xdp {
            self.pin_directory.remove_link(id, XDP_PIN)?;
        }
        self.pin_directory.record_slot(id, slot)
    }

    /// Whether the gates of `slot` are attached to the interface, before all other programs, and
    /// call through the program array that is pinned now.
    pub(crate) fn is_attached(
        &self,
        id: &str,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<bool> {
        if self.pin_directory.recorded_slot(id)? != Some(slot) {
            return Ok(false);
        }
        if self.use_xdp != self.pin_directory.link_path(id, XDP_PIN).exists() {
            return Ok(false);
        }
        let program_array = MapInfo::from_pin(self.pin_directory.map_path(TC_PROGRAMS))?.id();
        netns::run_in_netns(interface.netns.as_deref(), || {
            let attached = |pin, hook| {
                let gate = self.leading_program(
                    &self.pin_directory.link_path(id, pin),
                    &interface.name,
                    hook,
                );
                gate.is_some_and(|gate| slot_gates::uses_map(&gate, program_array))
            };
            Ok(attached(FROM_PIN, TcAttachType::Ingress) && attached(TO_PIN, TcAttachType::Egress))
        })
    }

    /// Detaches the gates. With clsact the interface must be given.
    pub(crate) fn detach_gates(&self, id: &str, interface: Option<&HostInterface>) -> Result<()> {
        if let Some(interface) = interface
            && !self.use_tcx
        {
            clsact::detach_from_interface(interface);
        }
        let _expedited = self.expedite();
        self.pin_directory.remove_links(id)
    }

    fn attach_tc(&self, id: &str, interface: &str, hook: TcAttachType, slot: Slot) -> Result<()> {
        let mut gate = self.slot_gates.tc_gate(slot, hook, GateCopy::Usual)?;
        let name = if hook == TcAttachType::Ingress { FROM_PIN } else { TO_PIN };
        let pin = self.pin_directory.link_path(id, name);
        if !self.use_tcx {
            clsact::attach_first(interface, hook, &mut gate)?;
            self.pin_directory.remove_link(id, name)?;
            return pin_directory::pin_with_retry(gate.fd()?.as_fd(), &pin);
        }
        if self.leading_program(&pin, interface, hook).is_some() {
            let link: FdLink = PinnedLink::from_pin(pin)?.into();
            let replaced = gate.attach_to_link(link.try_into()?)?;
            drop(gate.take_link(replaced)?);
            return Ok(());
        }
        let link = match attach_tcx_first(&mut gate, interface, hook) {
            Err(error) if is_attached_already(&error) => {
                gate = self.slot_gates.tc_gate(slot, hook, GateCopy::Spare)?;
                attach_tcx_first(&mut gate, interface, hook)
            }
            attached => attached,
        };
        let link = link.with_context(|| format!("interface: cannot attach to {interface}"))?;
        // The old pin is removed after the new gate is attached. Its gate may run after another
        // program, or belong to an interface that no longer exists or now serves another sandbox.
        self.pin_directory.remove_link(id, name)?;
        let link: FdLink = gate.take_link(link)?.try_into()?;
        self.pin_link(&link, id, name)
    }

    /// The program of a pin, if it is the first at the interface's hook. A program before it could
    /// let packets pass unjudged.
    fn leading_program(
        &self,
        pin: &Path,
        interface: &str,
        hook: TcAttachType,
    ) -> Option<ProgramInfo> {
        if !self.use_tcx {
            let program = ProgramInfo::from_pin(pin).ok()?;
            let first = clsact::first_program_id(interface, hook).ok()?;
            return (first == Some(program.id())).then_some(program);
        }
        let link: FdLink = PinnedLink::from_pin(pin).ok()?.into();
        let program = link.info().ok()?.program_id();
        let (_, programs) = SchedClassifier::query_tcx(interface, hook).ok()?;
        programs.into_iter().next().filter(|first| first.id() == program)
    }

    fn attach_xdp(&self, id: &str, interface: &str, gate: &mut Xdp) -> Result<()> {
        // The old link may be on another interface, and an interface can only have one. Without
        // early drop no packet passes unjudged, because the TC gates decide.
        self.pin_directory.remove_link(id, XDP_PIN)?;
        let link = gate
            .attach(interface, XdpMode::default())
            .with_context(|| format!("interface: cannot attach XDP to {interface}"))?;
        let link: FdLink = gate.take_link(link)?.try_into()?;
        self.pin_link(&link, id, XDP_PIN)
    }

    /// aya's own pinning drops the link if it fails, which would detach the gate.
    fn pin_link(&self, link: &FdLink, id: &str, name: &str) -> Result<()> {
        let link = bpf_syscall::open_link_by_id(link.info()?.id())?;
        pin_directory::pin_with_retry(link.as_fd(), &self.pin_directory.link_path(id, name))
    }
}

fn attach_tcx_first(
    gate: &mut SchedClassifier,
    interface: &str,
    hook: TcAttachType,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    gate.attach_with_options(interface, hook, order)
}

/// Whether this program is attached to the hook, but not in front.
fn is_attached_already(error: &ProgramError) -> bool {
    matches!(
        error,
        ProgramError::SyscallError(SyscallError { io_error, .. })
            if io_error.raw_os_error() == Some(libc::EEXIST)
    )
}

/// Checks that the interface exists and carries Ethernet frames.
fn check_interface(interface: &str) -> Result<()> {
    if if_nametoindex(interface).is_err() {
        let problem = "there is no such interface in the sandbox's network namespace";
        return Err(ValidationError::about_entry("interface", interface, problem).into());
    }
    let kind = hardware_type(interface)
        .with_context(|| format!("interface: cannot ask what {interface} is"))?;
    if kind != libc::ARPHRD_ETHER {
        let problem = "carries no Ethernet frames; use a veth or a tap";
        return Err(ValidationError::about_entry("interface", interface, problem).into());
    }
    Ok(())
}

/// The `ARPHRD_*` type of an interface in this network namespace (netdevice(7)).
fn hardware_type(interface: &str) -> Result<u16> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: integers and byte arrays, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1))
    {
        *place = byte.cast_signed();
    }
    // SAFETY: the request is an ifreq with a terminated name. The call reads it and fills it in.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    if result != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the call succeeded, so it has initialised this member.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}
