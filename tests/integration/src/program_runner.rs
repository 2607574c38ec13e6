//! The real programs in the real kernel, run on one frame at a time by `BPF_PROG_TEST_RUN`: the
//! whole way from a sandbox's gate to the verdict, without an interface.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    TestRun, TestRunOptions, TestRunResult,
    programs::{SchedClassifier, Xdp},
};
use aya_obj::programs::XdpAttachType;
use nix::sched::{CloneFlags, unshare};
use policy_agent::{
    dataplane::{
        AttachMethod, Dataplane, DataplaneSettings, DenyAction, EndpointAddresses, EventRingReader,
        HookMode, InboundSource, PolicyId, Slot,
    },
    policy::CompiledPolicy,
};
use policy_common::{event::VerdictEvent, reason::Reason};

use policy_oracle::InboundOrigin;
use policy_testbed::{
    network::BpffsDirectory,
    packets::{ETHERNET_HEADER_LEN, MacAddr},
};

/// Return codes of TC programs: "the next program decides, or pass"; drop; redirect.
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
/// Return codes of XDP programs.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// `__sk_buff::ingress_ifindex`: where a test may say which interface the frame came in at.
const INGRESS_IFINDEX: usize = 36;

/// The slot of the one sandbox.
const SANDBOX_SLOT: u32 = 5;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameAction {
    /// It passed.
    Pass,
    /// It vanished.
    Drop,
    /// It was answered with this frame.
    Reply(Vec<u8>),
}

/// What became of a frame, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// The verdict.
    pub action: FrameAction,
    /// What it was counted as; `None`: not counted.
    pub reason: Option<Reason>,
    /// The event that it left, if it left one.
    pub event: Option<VerdictEvent>,
}

/// Whether `BPF_PROG_TEST_RUN` takes a frame for a TC program: it refuses one that ends with or in
/// the Ethernet header, or in the IP header. XDP programs see those, too.
pub fn is_runnable(frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 1,
    };
    frame.len() >= ETHERNET_HEADER_LEN + header
}

/// The kernel's enforcement for one sandbox.
pub struct ProgramRunner {
    gates: LoadedGates,
    events: EventRingReader,
    dataplane: Dataplane,
    slot: Slot,
    // The last to go: the others are pinned there.
    bpffs: BpffsDirectory,
}

impl ProgramRunner {
    /// Loads the programs, with pins of their own. The thread moves to a network namespace of its
    /// own and stays there.
    pub fn open(deny_action: DenyAction, inbound: InboundSource) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "running programs in the kernel needs root: use `sudo -E cargo xtask test`"
        );
        // There the programs find no routes, whatever the machine's are.
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        let bpffs = BpffsDirectory::create()?;
        let dataplane = open_dataplane(&bpffs, deny_action, inbound)?;
        let slot = Slot::new(SANDBOX_SLOT).context("there is such a slot")?;
        let gates = LoadedGates::open(&dataplane, slot, bpffs.path())?;
        let events = dataplane.open_event_reader()?;
        Ok(Self { gates, events, dataplane, slot, bpffs })
    }

    /// Puts a fresh sandbox into the slot: nothing remembered, no policy.
    pub fn reset_sandbox(&self, mac: Option<MacAddr>, addresses: &[IpAddr]) -> Result<()> {
        prepare_slot(&self.dataplane, self.slot, mac, addresses)
    }

    /// Puts a policy in force.
    pub fn publish(&self, compiled: &CompiledPolicy) -> Result<PolicyId> {
        self.dataplane.publish(&[self.slot], compiled)
    }

    /// The directory of its pins.
    pub fn pins(&self) -> &Path {
        self.bpffs.path()
    }

    /// The sandbox sends a frame, which has to be [runnable](is_runnable).
    pub fn from_sandbox(&mut self, frame: &[u8]) -> Result<RunOutcome> {
        self.run_observed(|gates| tc_action(run_program(&gates.from_sandbox, frame, &[])?))
    }

    /// A frame is on its way to the sandbox; it has to be [runnable](is_runnable).
    pub fn to_sandbox(&mut self, frame: &[u8], origin: InboundOrigin) -> Result<RunOutcome> {
        let mut context = [0; 192];
        context[INGRESS_IFINDEX] = u8::from(origin == InboundOrigin::Forwarded);
        self.run_observed(|gates| tc_action(run_program(&gates.to_sandbox, frame, &context)?))
    }

    /// The sandbox sends a frame, in XDP mode, before TC sees it. It needs an Ethernet header.
    pub fn early_drop_in_xdp(&mut self, frame: &[u8]) -> Result<RunOutcome> {
        self.run_observed(|gates| match run_program(&gates.xdp, frame, &[])?.0 {
            XDP_PASS => Ok(FrameAction::Pass),
            XDP_DROP => Ok(FrameAction::Drop),
            code => bail!("early_drop returned {code}"),
        })
    }

    /// Runs something and sees which reason was counted and which event written.
    fn run_observed(
        &mut self,
        act: impl FnOnce(&LoadedGates) -> Result<FrameAction>,
    ) -> Result<RunOutcome> {
        let before = self.dataplane.counters(self.slot)?.by_reason;
        let action = act(&self.gates)?;
        let after = self.dataplane.counters(self.slot)?.by_reason;
        let grown: Vec<_> =
            (0..after.len()).filter(|&code| after[code].packets != before[code].packets).collect();
        ensure!(grown.len() <= 1, "one frame was counted {} times", grown.len());
        let code = grown.first().and_then(|&code| u8::try_from(code).ok());
        let mut event = None;
        self.events.drain_events(|seen| event = Some(*seen));
        Ok(RunOutcome { action, reason: code.and_then(Reason::from_code), event })
    }
}

/// Loads the programs, with pins in this place.
pub fn open_dataplane(
    bpffs: &BpffsDirectory,
    deny_action: DenyAction,
    inbound: InboundSource,
) -> Result<Dataplane> {
    Dataplane::open(DataplaneSettings {
        bpffs: bpffs.path().to_owned(),
        mode: HookMode::Tc,
        attach_method: AttachMethod::Auto,
        deny_action,
        inbound_source: inbound,
    })
}

/// Puts a fresh sandbox into a slot.
pub fn prepare_slot(
    dataplane: &Dataplane,
    slot: Slot,
    mac: Option<MacAddr>,
    addresses: &[IpAddr],
) -> Result<()> {
    dataplane.prepare_slot(slot, &EndpointAddresses { mac, addresses: addresses.to_vec() })
}

/// The loaded gates of a slot.
pub struct LoadedGates {
    /// What the sandbox sends.
    pub from_sandbox: SchedClassifier,
    /// What it receives.
    pub to_sandbox: SchedClassifier,
    /// What it sends, before TC.
    pub xdp: Xdp,
}

impl LoadedGates {
    /// Loads the gates; by way of pins, which make handles of their own.
    pub fn open(dataplane: &Dataplane, slot: Slot, pins: &Path) -> Result<Self> {
        let pin = |name| pins.join(format!("{name}_{}", slot.get()));
        let [from, to, xdp] = ["from", "to", "xdp"].map(pin);
        let mut gate = dataplane.load_slot_gates(slot)?;
        gate.load_from_sandbox()?.pin(&from)?;
        gate.load_to_sandbox()?.pin(&to)?;
        gate.load_xdp()?.pin(&xdp)?;
        Ok(Self {
            from_sandbox: SchedClassifier::from_pin(from)?,
            to_sandbox: SchedClassifier::from_pin(to)?,
            xdp: Xdp::from_pin(xdp, XdpAttachType::Interface)?,
        })
    }
}

fn tc_action((code, out): (u32, Vec<u8>)) -> Result<FrameAction> {
    match code {
        TC_ACT_UNSPEC => Ok(FrameAction::Pass),
        TC_ACT_SHOT => Ok(FrameAction::Drop),
        TC_ACT_REDIRECT => Ok(FrameAction::Reply(out)),
        code => bail!("the gate returned {code}"),
    }
}

/// Runs a program on a frame: what it returned, and what became of the frame.
fn run_program<'a, P>(program: &P, frame: &'a [u8], context: &'a [u8]) -> Result<(u32, Vec<u8>)>
where
    P: for<'o> TestRun<Opts<'o> = TestRunOptions<'o>, Result = TestRunResult>,
{
    let mut out = vec![0; frame.len() + 256];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    options.ctx_in = (!context.is_empty()).then_some(context);
    let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value, out))
}
