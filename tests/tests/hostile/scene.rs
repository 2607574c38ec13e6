//! The wire: a sandbox whose own kernel is silent, and a watch at the far end of the uplink.

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use policy_agent::policy::{self, Defaults, Floor, Policy};
use policy_common::reason::Reason;
use policy_tests::{
    oracle::{Identity, Oracle},
    packet::{
        Datagram, Frame, Payload,
        cast::{GATEWAY, SANDBOX, SANDBOX_TOO},
    },
    random::{Random, policies},
    stage::{Guest, MARKER_TO, OrFail as _, Stage, ip},
    wire::{Wire, carries},
    world::{
        host::{INTERNET_V4, INTERNET_V6, UPLINK},
        sandbox::{INSIDE, mac_text},
    },
};
use serde_json::{Value, json};

use super::crossing::{Arrived, Expected};

/// Frames that are sent before those that crossed are looked at: the kernel queues a thousand.
const ROUND: usize = 200;
/// Entries of a list.
const ENTRIES: usize = 24;

/// A sandbox under a policy, its oracle, and both ends of its way.
pub struct Scene {
    seed: u64,
    sandbox: Guest,
    inside: Wire,
    beyond: Wire,
    oracle: Oracle,
    floor: Floor,
    in_force: Value,
    digest: Option<[u8; 16]>,
    sent: usize,
    crossed: usize,
    reasons: BTreeMap<Reason, usize>,
}

impl Scene {
    /// A stage with one sandbox, which is the one of [`policy_tests::packet::cast`].
    pub fn build(seed: u64) -> Self {
        let stage = Stage::with(&format!("[dataplane]\nplatform_allow = [\"{MARKER_TO}\"]"));
        let sandbox = stage.sandbox();
        silence(&stage, &sandbox);
        stay_on_this_cpu(); // not before: the agent would, too
        let addresses = vec![SANDBOX.v4.into(), SANDBOX_TOO.into(), SANDBOX.v6.into()];
        let identity = Identity { mac: Some(SANDBOX.mac), addresses };
        let floor = Floor::new(&[MARKER_TO.to_owned()], None);
        Self {
            seed,
            inside: sandbox.wire(),
            beyond: sandbox.beyond_the_host(),
            sandbox,
            oracle: Oracle::new(identity, false),
            floor: floor.unwrap_or_else(|invalid| panic!("{invalid}")),
            in_force: Value::Null,
            digest: None,
            sent: 0,
            crossed: 0,
            reasons: BTreeMap::new(),
        }
    }

    /// Frames sent so far.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Puts a random policy in force, another one than before: fragments know their policy.
    pub fn next_policy(&mut self, rng: &mut Rng) -> Random {
        loop {
            let random = policies::policy(rng, &self.floor, ENTRIES);
            let digest = policy::compile(&random.policy, &self.floor).digest();
            if self.digest.replace(digest) == Some(digest) {
                continue;
            }
            let mut config = json!({ "network": random.network });
            if let Some(internet) = random.internet {
                config["allowInternetAccess"] = json!(internet);
            }
            self.put_in_force(&config, random.policy.clone());
            return random;
        }
    }

    /// A policy that leaves everything to the floor.
    pub fn allow_everything(&mut self) {
        let defaults = Defaults::default();
        let policy = Policy::new(&Default::default(), None, &defaults, &self.floor);
        self.put_in_force(&json!({}), policy.unwrap_or_else(|invalid| panic!("{invalid}")));
    }

    fn put_in_force(&mut self, config: &Value, policy: Policy) {
        let mut config = config.clone();
        config["mac"] = json!(mac_text(SANDBOX.mac));
        config["addresses"] = json!([SANDBOX.v4, SANDBOX_TOO, SANDBOX.v6]);
        self.sandbox.configure(&config);
        self.in_force = config;
        self.oracle.publish(policy, self.floor.clone());
    }

    /// Sends frames, and holds what crosses against what the oracle says.
    pub fn send(&mut self, frames: Vec<Frame>) {
        for round in frames.chunks(ROUND) {
            let mut expected = Expected::default();
            for frame in round {
                let reason = self.oracle.from_sandbox(frame.bytes()).reason;
                *self.reasons.entry(reason).or_default() += 1;
                match reason.passes() {
                    true => expected.allow(frame.bytes()),
                    false => expected.deny(frame.bytes(), reason.label().to_owned()),
                }
                self.inside.send(frame.bytes()).or_fail("sending a frame");
            }
            self.sent += round.len();
            self.watch(&mut expected);
        }
    }

    /// Everything that crosses until a marker does that was sent last.
    fn watch(&mut self, expected: &mut Expected) {
        let marker = format!("<<marker {}>>", self.sent).into_bytes();
        let payload = Payload::udp(40_000, 9, &marker);
        let last = Datagram::new(SANDBOX.v4, ip(MARKER_TO), payload).frame();
        self.inside.send(last.bytes()).or_fail("sending the marker");
        let seen = self.beyond.until(|frame| carries(frame, &marker));
        for frame in seen.or_fail("waiting for the marker") {
            match expected.arrived(&frame) {
                Arrived::Allowed => self.crossed += 1,
                Arrived::OfTheHost => {}
                Arrived::Leaked(reason) => self.report(&frame, &reason),
            }
        }
    }

    fn report(&self, frame: &[u8], reason: &str) -> ! {
        panic!(
            "\nPOLICY_TEST_SEED={}: among the first {} frames one crossed that must not\n  \
             frame:  {:?}\n  oracle: {reason}\n  policy: {}\n",
            self.seed,
            self.sent,
            Frame::of(frame),
            self.in_force
        )
    }

    /// Shows what was sent; a run in which hardly anything passed, or was denied, proves nothing.
    pub fn says_what_it_saw(&self, few: usize) {
        let Self { sent, crossed, reasons, .. } = self;
        println!("{sent} frames, {crossed} crossed and all of them may; {reasons:?}");
        let denied: usize =
            reasons.iter().filter(|(reason, _)| !reason.passes()).map(|(_, count)| count).sum();
        assert!(*crossed > few, "only {crossed} of {sent} frames crossed");
        assert!(denied > few, "only {denied} of {sent} frames were denied");
        let healthy = self.sandbox.stage.agent().is_healthy();
        assert!(healthy && self.sandbox.status()["status"] == "enforcing");
    }
}

/// Two CPUs would deliver what one thread sends in another order, and fragments have one.
fn stay_on_this_cpu() {
    let mut this = CpuSet::new();
    this.set(sched_getcpu().or_fail("this CPU")).or_fail("a set of one CPU");
    sched_setaffinity(Pid::from_raw(0), &this).or_fail("staying on this CPU");
}

/// The sandbox's kernel answers nobody, and no neighbour has to be looked for.
fn silence(stage: &Arc<Stage>, sandbox: &Guest) {
    let (host, internet) = (&stage.world.host, &stage.world.internet);
    sandbox.inside.sysctl(&format!("ipv6/conf/{INSIDE}/disable_ipv6"), "1").or_fail("no IPv6");
    sandbox.inside.ip(&format!("addr flush dev {INSIDE}")).or_fail("no addresses");
    let beyond = mac_text(internet.mac(UPLINK).or_fail("the uplink's MAC"));
    let neighbour = |at: &dyn std::fmt::Display| {
        format!("neigh replace {at} lladdr {beyond} dev {UPLINK} nud permanent\n")
    };
    let (v4, v6) = (neighbour(&INTERNET_V4), neighbour(&INTERNET_V6));
    let mac = mac_text(GATEWAY.mac);
    let lines = format!("{v4}{v6}link set {} address {mac}", sandbox.interface);
    host.ip(&lines).or_fail("neighbours and a MAC");
}
