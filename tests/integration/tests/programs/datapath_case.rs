//! A sandbox with a policy, in the kernel and in the oracle.

use std::{net::IpAddr, time::Duration};

use policy_agent::{
    dataplane::{DenyAction, InboundSource},
    policy::{self, CompiledPolicy},
};
use policy_common::reason::Reason;
use policy_integration::{
    oracle_input,
    program_runner::{FrameAction, ProgramRunner, RunOutcome},
};
use policy_oracle::{FloorLists, InboundOrigin, OracleIdentity, PacketOracle};
use policy_testbed::packets::{
    EthernetFrame, IpDatagram, IpPayload,
    test_hosts::{SANDBOX, SANDBOX_SECOND_V4},
};

/// A `network` configuration that denies everything.
pub(crate) const DENY_ALL: &str = r#"{"denyOut": ["0.0.0.0/0"]}"#;

/// A frame, its direction, and the expected verdict.
pub(crate) struct DatapathStep {
    description: String,
    direction: FrameDirection,
    frame: EthernetFrame,
    expected: Reason,
}

enum FrameDirection {
    FromSandbox,
    ToSandbox(InboundOrigin),
}

/// A frame from the sandbox.
pub(crate) fn sends(what: &str, frame: impl Into<EthernetFrame>, expect: Reason) -> DatapathStep {
    DatapathStep {
        description: what.to_owned(),
        direction: FrameDirection::FromSandbox,
        frame: frame.into(),
        expected: expect,
    }
}

/// A frame to the sandbox.
pub(crate) fn receives(
    what: &str,
    origin: InboundOrigin,
    frame: impl Into<EthernetFrame>,
    expect: Reason,
) -> DatapathStep {
    DatapathStep {
        description: what.to_owned(),
        direction: FrameDirection::ToSandbox(origin),
        frame: frame.into(),
        expected: expect,
    }
}

/// A datagram from the sandbox to port 4000, which has no special meaning.
pub(crate) fn udp_from_sandbox(address: impl Into<IpAddr>) -> IpDatagram {
    datagram_from_sandbox(address, IpPayload::udp(40_000, 4000, b"hello"))
}

/// A TCP SYN from the sandbox.
pub(crate) fn syn_from_sandbox(address: impl Into<IpAddr>, port: u16) -> IpDatagram {
    datagram_from_sandbox(address, IpPayload::syn(40_000, port))
}

/// A datagram from the sandbox's address of the same family.
pub(crate) fn datagram_from_sandbox(address: impl Into<IpAddr>, payload: IpPayload) -> IpDatagram {
    let address = address.into();
    IpDatagram::new(sandbox_address_like(address), address, payload)
}

/// A datagram to the sandbox's address of the same family.
pub(crate) fn datagram_to_sandbox(from: impl Into<IpAddr>, payload: IpPayload) -> IpDatagram {
    let from = from.into();
    IpDatagram::new(from, sandbox_address_like(from), payload)
}

/// The sandbox's address of the same family.
pub(crate) fn sandbox_address_like(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { SANDBOX.v4.into() } else { SANDBOX.v6.into() }
}

/// The settings of a case. Default: denied packets are dropped silently, and the default floor
/// applies.
pub(crate) struct DatapathSettings {
    pub(crate) deny_action: DenyAction,
    pub(crate) inbound: InboundSource,
    pub(crate) mac_known: bool,
    pub(crate) floor: FloorLists,
}

impl Default for DatapathSettings {
    fn default() -> Self {
        Self {
            deny_action: DenyAction::Drop,
            inbound: InboundSource::Any,
            mac_known: true,
            floor: FloorLists::default(),
        }
    }
}

/// One sandbox in the kernel and in the oracle.
pub(crate) struct DatapathCase {
    pub(crate) programs: ProgramRunner,
    oracle: PacketOracle,
    settings: DatapathSettings,
}

impl DatapathCase {
    /// A sandbox with a network configuration.
    pub(crate) fn with_network(network: &str) -> Self {
        Self::with_settings(network, DatapathSettings::default())
    }

    /// A sandbox with a network configuration and other settings.
    pub(crate) fn with_settings(network: &str, setting: DatapathSettings) -> Self {
        let mut stage = Self::without_policy(setting);
        stage.publish(network);
        stage
    }

    /// A sandbox without a policy.
    pub(crate) fn without_policy(setting: DatapathSettings) -> Self {
        let kernel = ProgramRunner::open(setting.deny_action, setting.inbound)
            .unwrap_or_else(|error| panic!("{error:#}"));
        let identity = OracleIdentity {
            mac: setting.mac_known.then_some(SANDBOX.mac),
            addresses: vec![SANDBOX.v4.into(), SANDBOX_SECOND_V4.into(), SANDBOX.v6.into()],
        };
        kernel.reset_sandbox(identity.mac, &identity.addresses).expect("a slot is prepared");
        let oracle = PacketOracle::new(identity, setting.inbound == InboundSource::Host);
        Self { programs: kernel, oracle, settings: setting }
    }

    /// Puts a network configuration into force.
    pub(crate) fn publish(&mut self, network: &str) {
        let compiled = self.compile(network);
        self.programs.publish(&compiled).expect("the policy is published");
        self.oracle.publish(&parse(network), None, &self.settings.floor);
    }

    /// The same for the second sandbox too.
    pub(crate) fn publish_in_both(&mut self, network: &str) {
        self.publish(network);
        let compiled = self.compile(network);
        self.programs.publish_in_second(&compiled).expect("the policy is published");
    }

    fn compile(&self, network: &str) -> CompiledPolicy {
        let floor = oracle_input::agent_floor(&self.settings.floor);
        let policy = oracle_input::agent_policy(&parse(network), None, &floor)
            .unwrap_or_else(|invalid| panic!("{network}: {invalid}"));
        policy::compile_policy(&policy, &floor)
    }

    /// Lets time pass without ending connections.
    pub(crate) fn wait(&self, seconds: u64) {
        self.programs.age_flows(Duration::from_secs(seconds)).expect("flows age");
    }

    /// Lets so much time pass that all inbound connections are over.
    pub(crate) fn wait_until_over(&mut self, seconds: u64) {
        self.wait(seconds);
        self.oracle.end_inbound_connections();
    }

    /// Runs every step in order and reports all that differ.
    pub(crate) fn assert_steps(&mut self, steps: &[DatapathStep]) {
        let wrong: Vec<String> =
            steps.iter().filter_map(|step| self.check_step(step).err()).collect();
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    fn check_step(&mut self, step: &DatapathStep) -> Result<(), String> {
        let DatapathStep { description: what, direction: way, frame, expected: expect } = step;
        let bytes = frame.bytes();
        let (outcome, law) = match way {
            FrameDirection::FromSandbox => {
                self.check_early_drop(step)?;
                (self.programs.from_sandbox(bytes), self.oracle.from_sandbox(bytes).reason)
            }
            FrameDirection::ToSandbox(origin) => {
                (self.programs.to_sandbox(bytes, *origin), self.oracle.to_sandbox(bytes, *origin))
            }
        };
        let law = oracle_input::kernel_reason(law);
        let seen = outcome.map_err(|error| format!("{what}: {error:#} [{frame:?}]"))?;
        let passed = seen.action == FrameAction::Pass;
        if seen.reason != Some(*expect) || passed != expect.passes() {
            return Err(format!(
                "{what}: expected {expect:?}, the kernel did {seen:?} [{frame:?}]"
            ));
        }
        // The kernel checks line 3 last, since that line can only allow.
        let same_verdict = law == Reason::Reply && passed;
        if law != *expect && !same_verdict {
            return Err(format!(
                "{what}: expected {expect:?}, the oracle says {law:?} [{frame:?}]"
            ));
        }
        Ok(())
    }

    /// Checks the XDP program: it drops what TC would drop silently. It leaves fragments,
    /// discovery, denials with a reply, and traffic for the egress proxy to TC.
    fn check_early_drop(&mut self, step: &DatapathStep) -> Result<(), String> {
        let DatapathStep { description: what, frame, expected: expect, .. } = step;
        let answered = self.settings.deny_action == DenyAction::Reject && expect.is_rejectable();
        let left =
            matches!(expect, Reason::Fragment | Reason::NeighborSpoof | Reason::ProxyUnavailable);
        let drops = !expect.passes() && !answered && !left;
        let RunOutcome { action, reason, .. } = self
            .programs
            .early_drop_in_xdp(frame.bytes())
            .map_err(|error| format!("{what}, in XDP: {error:#}"))?;
        let wanted =
            if drops { (FrameAction::Drop, Some(*expect)) } else { (FrameAction::Pass, None) };
        if (&action, reason) != (&wanted.0, wanted.1) {
            return Err(format!(
                "{what}: expected {expect:?}, XDP did {action:?} for {reason:?} [{frame:?}]"
            ));
        }
        Ok(())
    }
}

fn parse(network: &str) -> serde_json::Value {
    serde_json::from_str(network).unwrap_or_else(|invalid| panic!("{network}: {invalid}"))
}

/// The lists of an operator who replaces the built-in list.
pub(crate) fn floor_lists(allow: &[&str], deny: &[&str]) -> FloorLists {
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    FloorLists {
        platform_allow: owned(allow),
        platform_deny: Some(owned(deny)),
        ..FloorLists::default()
    }
}
