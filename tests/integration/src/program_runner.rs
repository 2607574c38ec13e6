//! Runs the real programs in the real kernel on one frame at a time with `BPF_PROG_TEST_RUN`: the
//! whole path from a sandbox's gate to the verdict, without an interface.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    TestRun, TestRunOptions, TestRunResult,
    maps::{HashMap, Map, MapData},
    programs::{SchedClassifier, Xdp},
};
use aya_obj::programs::XdpAttachType;
use nix::sched::{CloneFlags, unshare};
use policy_agent::{
    dataplane::{
        AttachMethod, Dataplane, DataplaneSettings, DenyAction, EndpointAddresses, EventRingReader,
        GuardMethod, GuardSettings, HookMode, InboundSource, PolicyId, Slot, TableKind,
    },
    policy::CompiledPolicy,
};
use policy_common::{
    ABI_VERSION,
    bpf_names::{INBOUND_DATAGRAM, INBOUND_TCP, OUTBOUND_TCP},
    counters::ReasonCounters,
    event::VerdictEvent,
    flow::{FLOW_TICK_SHIFT, FLOW_TIME_MASK, FlowPage},
    rate_limit::RateLimiterState,
    reason::Reason,
};

use policy_oracle::InboundOrigin;
use policy_testbed::{
    network::BpffsDirectory,
    packets::{ETHERNET_HEADER_LEN, MacAddr},
};

/// Return codes of TC programs: "pass, or continue with the next program"; drop; redirect.
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
/// Return codes of XDP programs.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// The offset of `__sk_buff::ingress_ifindex`, in which a test can set the interface on which the
/// frame arrived.
const INGRESS_IFINDEX: usize = 36;

/// The slot of the sandbox.
const SANDBOX_SLOT: u32 = 5;
/// The slot of a second sandbox.
const SECOND_SLOT: u32 = 6;

/// The result for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameAction {
    /// The frame passed.
    Pass,
    /// The frame was dropped.
    Drop,
    /// The program replied with this frame.
    Reply(Vec<u8>),
}

/// The result for a frame and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// The action taken.
    pub action: FrameAction,
    /// The counted reason; `None` if nothing was counted.
    pub reason: Option<Reason>,
    /// The event, if one was written.
    pub event: Option<VerdictEvent>,
}

/// Returns whether `BPF_PROG_TEST_RUN` accepts a frame for a TC program. It rejects a frame that
/// ends in or directly after the Ethernet header, or in the IP header. XDP programs receive those
/// frames too.
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
    // Dropped last, since the other fields are pinned there.
    bpffs: BpffsDirectory,
}

impl ProgramRunner {
    /// Loads the programs with their own pins. Moves the calling thread to a new network namespace
    /// for good.
    pub fn open(deny_action: DenyAction, inbound: InboundSource) -> Result<Self> {
        Self::open_with_tables(deny_action, inbound, TableKind::Flat)
    }

    /// Like [`Self::open`], with policies in tables of this kind.
    pub fn open_with_tables(
        deny_action: DenyAction,
        inbound: InboundSource,
        tables: TableKind,
    ) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "running programs in the kernel needs root: use `sudo -E cargo xtask test`"
        );
        // In a new namespace the programs find no routes, whatever the machine has.
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        // On a host that does not forward, the programs cannot tell local destinations.
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").context("forwarding IPv6")?;
        let bpffs = BpffsDirectory::create()?;
        let dataplane = open_dataplane(&bpffs, deny_action, inbound, tables)?;
        let slot = Slot::new(SANDBOX_SLOT).context("there is such a slot")?;
        let gates = LoadedGates::open(&dataplane, slot, bpffs.path())?;
        let events = dataplane.open_event_reader()?;
        Ok(Self { gates, events, dataplane, slot, bpffs })
    }

    /// Assigns a new sandbox to the slot, without connection state and without a policy.
    pub fn reset_sandbox(&self, mac: Option<MacAddr>, addresses: &[IpAddr]) -> Result<()> {
        prepare_slot(&self.dataplane, self.slot, mac, addresses)
    }

    /// Puts a policy into force.
    pub fn publish(&self, compiled: &CompiledPolicy) -> Result<PolicyId> {
        self.dataplane.publish(&[self.slot], compiled)
    }

    /// Puts a policy into force in the second sandbox.
    pub fn publish_in_second(&self, compiled: &CompiledPolicy) -> Result<PolicyId> {
        self.dataplane.publish(&[second_slot()?], compiled)
    }

    /// The rate limits of the second sandbox.
    pub fn second_rate_limits(&self) -> Result<RateLimiterState> {
        self.dataplane.rate_limits(second_slot()?)
    }

    /// The counters of the sandbox.
    pub fn counters(&self) -> Result<ReasonCounters> {
        self.dataplane.counters(self.slot)
    }

    /// The rate limits of the sandbox.
    pub fn rate_limits(&self) -> Result<RateLimiterState> {
        self.dataplane.rate_limits(self.slot)
    }

    /// Reads the events that were written since they were last read, and returns their number.
    pub fn count_events(&mut self) -> usize {
        self.events.drain_events(|_| {})
    }

    /// Sets whether packets that pass are reported. If they are, none takes the fast path.
    pub fn set_flow_reporting(&self, report: bool) -> Result<()> {
        self.dataplane.set_flow_reporting(report)
    }

    /// Prepares another sandbox in a slot of its own and opens its gates.
    pub fn open_second_sandbox(&self, addresses: &[IpAddr]) -> Result<LoadedGates> {
        self.reset_second_sandbox(addresses)?;
        LoadedGates::open(&self.dataplane, second_slot()?, self.bpffs.path())
    }

    /// Assigns a new sandbox to the slot of the second one.
    pub fn reset_second_sandbox(&self, addresses: &[IpAddr]) -> Result<()> {
        prepare_slot(&self.dataplane, second_slot()?, None, addresses)
    }

    /// The gates of the sandbox.
    pub fn gates(&self) -> &LoadedGates {
        &self.gates
    }

    /// The number of flows, of all sandboxes, that a flow table holds.
    pub fn count_flows(&self, table: &str) -> Result<usize> {
        let pages = self.open_flow_table(table)?;
        let mut count = 0;
        for page in pages.iter() {
            let flows = page?.1.sets.into_iter().flat_map(|set| set.flows);
            count += flows.filter(|flow| flow.state != 0).count();
        }
        Ok(count)
    }

    /// Lets time pass for all flows of all tables.
    pub fn age_flows(&self, time: Duration) -> Result<()> {
        let ticks = u64::try_from(time.as_nanos())? >> FLOW_TICK_SHIFT;
        for table in [INBOUND_TCP, INBOUND_DATAGRAM, OUTBOUND_TCP] {
            let mut pages = self.open_flow_table(table)?;
            let all: Vec<_> = pages.iter().collect::<Result<_, _>>()?;
            for (key, mut page) in all {
                for set in &mut page.sets {
                    set.incomplete_until = set.incomplete_until.saturating_sub(ticks);
                    for flow in &mut set.flows {
                        let end = (flow.state & FLOW_TIME_MASK).saturating_sub(ticks);
                        flow.state = flow.state & !FLOW_TIME_MASK | end;
                    }
                }
                pages.insert(key, page, 0)?;
            }
        }
        Ok(())
    }

    fn open_flow_table(&self, name: &str) -> Result<HashMap<MapData, u32, FlowPage>> {
        let pin = self.bpffs.path().join(format!("v{ABI_VERSION}/maps/{name}"));
        Ok(Map::from_map_data(MapData::from_pin(pin)?)?.try_into()?)
    }

    /// The kernel's enforcement.
    pub fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// The directory of the pins.
    pub fn pins(&self) -> &Path {
        self.bpffs.path()
    }

    /// Runs the gate on a frame from the sandbox, which must be [runnable](is_runnable).
    pub fn from_sandbox(&mut self, frame: &[u8]) -> Result<RunOutcome> {
        self.run_observed(|gates| gates.pass_from_sandbox(frame))
    }

    /// Runs the gate on a frame to the sandbox, which must be [runnable](is_runnable).
    pub fn to_sandbox(&mut self, frame: &[u8], origin: InboundOrigin) -> Result<RunOutcome> {
        self.run_observed(|gates| gates.pass_to_sandbox(frame, origin))
    }

    /// Runs the XDP program, which precedes TC, on a frame from the sandbox. The frame needs an
    /// Ethernet header.
    pub fn early_drop_in_xdp(&mut self, frame: &[u8]) -> Result<RunOutcome> {
        self.run_observed(|gates| match run_program(&gates.xdp, frame, &[])?.0 {
            XDP_PASS => Ok(FrameAction::Pass),
            XDP_DROP => Ok(FrameAction::Drop),
            code => bail!("early_drop returned {code}"),
        })
    }

    /// Runs a program and returns the counted reason and the written event with its result.
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

fn second_slot() -> Result<Slot> {
    Slot::new(SECOND_SLOT).context("there is such a slot")
}

/// Loads the programs with pins in this directory.
pub fn open_dataplane(
    bpffs: &BpffsDirectory,
    deny_action: DenyAction,
    inbound: InboundSource,
    tables: TableKind,
) -> Result<Dataplane> {
    Dataplane::open(DataplaneSettings {
        bpffs: bpffs.path().to_owned(),
        mode: HookMode::Tc,
        attach_method: AttachMethod::Auto,
        expedite_rcu: true,
        tables,
        deny_action,
        inbound_source: inbound,
        // Programs run without an interface.
        guard: GuardSettings { method: GuardMethod::Off, ..GuardSettings::default() },
    })
}

/// Assigns a new sandbox to a slot.
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
    /// For traffic from the sandbox.
    pub from_sandbox: SchedClassifier,
    /// For traffic to the sandbox.
    pub to_sandbox: SchedClassifier,
    /// For traffic from the sandbox, before TC.
    pub xdp: Xdp,
}

impl LoadedGates {
    /// Opens the gates through their pins, which provide independent handles.
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

impl LoadedGates {
    /// Runs the gate on a frame from the sandbox.
    pub fn pass_from_sandbox(&self, frame: &[u8]) -> Result<FrameAction> {
        tc_action(run_program(&self.from_sandbox, frame, &[])?)
    }

    /// Runs the gate many times on a frame from the sandbox.
    pub fn repeat_from_sandbox(&self, frame: &[u8], times: u32) -> Result<()> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = times;
        self.from_sandbox.test_run(options).context("BPF_PROG_TEST_RUN")?;
        Ok(())
    }

    /// Runs the gate on a frame to the sandbox.
    pub fn pass_to_sandbox(&self, frame: &[u8], origin: InboundOrigin) -> Result<FrameAction> {
        let mut context = [0; 192];
        context[INGRESS_IFINDEX] = u8::from(origin == InboundOrigin::Forwarded);
        tc_action(run_program(&self.to_sandbox, frame, &context)?)
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

/// Runs a program on a frame. Returns its return code and the resulting frame.
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
