//! A sandbox with a policy, in the kernel and in the oracle.

use std::net::IpAddr;

use policy_agent::{
    dataplane::{DenyAction, Inbound},
    policy::{self, Defaults, Floor, NetworkConfig, Policy},
};
use policy_common::reason::Reason;
use policy_tests::{
    kernel::{Action, Kernel, Origin, Outcome},
    oracle::{Identity, Oracle},
    packet::{
        Datagram, Frame, Payload,
        cast::{SANDBOX, SANDBOX_TOO},
    },
};

/// A frame, which way it goes, and what has to become of it.
pub struct Step {
    what: String,
    way: Way,
    frame: Frame,
    expect: Reason,
}

enum Way {
    Out,
    In(Origin),
}

/// The sandbox sends a frame.
pub fn out(what: &str, frame: impl Into<Frame>, expect: Reason) -> Step {
    Step { what: what.to_owned(), way: Way::Out, frame: frame.into(), expect }
}

/// A frame is on its way to the sandbox.
pub fn into(what: &str, origin: Origin, frame: impl Into<Frame>, expect: Reason) -> Step {
    Step { what: what.to_owned(), way: Way::In(origin), frame: frame.into(), expect }
}

/// A datagram from the sandbox, to port 4000, which means nothing.
pub fn udp_to(address: impl Into<IpAddr>) -> Datagram {
    from_sandbox(address, Payload::udp(40_000, 4000, b"hello"))
}

/// The opening of a connection from the sandbox.
pub fn syn_to(address: impl Into<IpAddr>, port: u16) -> Datagram {
    from_sandbox(address, Payload::syn(40_000, port))
}

/// A datagram from the sandbox's address of the right family.
pub fn from_sandbox(address: impl Into<IpAddr>, payload: Payload) -> Datagram {
    let address = address.into();
    Datagram::new(sandbox_like(address), address, payload)
}

/// The sandbox's address of the same family.
pub fn sandbox_like(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { SANDBOX.v4.into() } else { SANDBOX.v6.into() }
}

/// How a stage differs from the usual one: denied packets vanish, the default floor.
pub struct Setting {
    pub deny_action: DenyAction,
    pub inbound: Inbound,
    pub mac_known: bool,
    pub floor: Floor,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            deny_action: DenyAction::Drop,
            inbound: Inbound::Any,
            mac_known: true,
            floor: Floor::default(),
        }
    }
}

/// One sandbox in the kernel and in the oracle.
pub struct Stage {
    pub kernel: Kernel,
    oracle: Oracle,
    setting: Setting,
}

impl Stage {
    /// A sandbox with a network configuration.
    pub fn with(network: &str) -> Self {
        Self::set(network, Setting::default())
    }

    /// The same under other settings.
    pub fn set(network: &str, setting: Setting) -> Self {
        let mut stage = Self::without_policy(setting);
        stage.publish(network);
        stage
    }

    /// A sandbox without a policy.
    pub fn without_policy(setting: Setting) -> Self {
        let kernel = Kernel::open(setting.deny_action, setting.inbound)
            .unwrap_or_else(|error| panic!("{error:#}"));
        let identity = Identity {
            mac: setting.mac_known.then_some(SANDBOX.mac),
            addresses: vec![SANDBOX.v4.into(), SANDBOX_TOO.into(), SANDBOX.v6.into()],
        };
        kernel.sandbox(identity.mac, &identity.addresses).expect("a slot is prepared");
        let oracle = Oracle::new(identity, setting.inbound == Inbound::Host);
        Self { kernel, oracle, setting }
    }

    /// Puts a network configuration in force.
    pub fn publish(&mut self, network: &str) {
        let policy = policy_of(network, &self.setting.floor);
        let compiled = policy::compile(&policy, &self.setting.floor);
        self.kernel.publish(&compiled).expect("the policy is published");
        self.oracle.publish(policy, self.setting.floor.clone());
    }

    /// Runs every step, in order, and tells all that went otherwise.
    pub fn judge(&mut self, steps: &[Step]) {
        let wrong: Vec<String> = steps.iter().filter_map(|step| self.take(step).err()).collect();
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        let Step { what, way, frame, expect } = step;
        let bytes = frame.bytes();
        let (outcome, law) = match way {
            Way::Out => {
                self.early_drop_agrees(step)?;
                (self.kernel.from_sandbox(bytes), self.oracle.from_sandbox(bytes).reason)
            }
            Way::In(origin) => {
                (self.kernel.to_sandbox(bytes, *origin), self.oracle.to_sandbox(bytes, *origin))
            }
        };
        let seen = outcome.map_err(|error| format!("{what}: {error:#} [{frame:?}]"))?;
        let passed = seen.action == Action::Pass;
        if seen.reason != Some(*expect) || passed != expect.passes() {
            return Err(format!(
                "{what}: expected {expect:?}, the kernel did {seen:?} [{frame:?}]"
            ));
        }
        // The kernel asks for line 3 last, since all it can say is to pass.
        let same_verdict = law == Reason::Reply && passed;
        if law != *expect && !same_verdict {
            return Err(format!(
                "{what}: expected {expect:?}, the oracle says {law:?} [{frame:?}]"
            ));
        }
        Ok(())
    }

    /// XDP drops what TC would drop in silence; fragments, discovery, what is answered and what is
    /// for the egress proxy are left to TC.
    fn early_drop_agrees(&mut self, step: &Step) -> Result<(), String> {
        let Step { what, frame, expect, .. } = step;
        let answered = self.setting.deny_action == DenyAction::Reject && expect.rejects();
        let left =
            matches!(expect, Reason::Fragment | Reason::NeighborSpoof | Reason::ProxyUnavailable);
        let drops = !expect.passes() && !answered && !left;
        let Outcome { action, reason, .. } = self
            .kernel
            .early_drop(frame.bytes())
            .map_err(|error| format!("{what}, in XDP: {error:#}"))?;
        let wanted = if drops { (Action::Drop, Some(*expect)) } else { (Action::Pass, None) };
        if (&action, reason) != (&wanted.0, wanted.1) {
            return Err(format!(
                "{what}: expected {expect:?}, XDP did {action:?} for {reason:?} [{frame:?}]"
            ));
        }
        Ok(())
    }
}

/// A network configuration as users write it.
pub fn policy_of(network: &str, floor: &Floor) -> Policy {
    let network: NetworkConfig =
        policy::parse(network.as_bytes()).unwrap_or_else(|invalid| panic!("{network}: {invalid}"));
    let defaults = Defaults { nameserver: [8, 8, 8, 8].into() };
    Policy::new(&network, None, &defaults, floor)
        .unwrap_or_else(|invalid| panic!("{network:?}: {invalid}"))
}

/// A floor from lists as operators write them.
pub fn floor(allow: &[&str], deny: &[&str]) -> Floor {
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    Floor::new(&owned(allow), Some(&owned(deny))).unwrap_or_else(|invalid| panic!("{invalid}"))
}
