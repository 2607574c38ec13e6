//! Runs pairs and compares.

use std::{collections::BTreeMap, time::Instant};

use fastrand::Rng;
use policy_agent::{
    dataplane::{DenyAction, Inbound, PolicyId},
    policy::{self, RuleRef},
};
use policy_common::{event::Event, reason::Reason};
use policy_tests::{
    kernel::{Action, Kernel, Outcome, is_runnable},
    oracle::{Identity, Judgement, Oracle},
    packet::{
        Frame,
        cast::{SANDBOX, SANDBOX_TOO},
    },
    random::{
        Packet, Packets,
        policies::{self, Random},
    },
};

/// Sizes of lists: many small ones, some for which the kernel has other tables.
const SIZES: [usize; 8] = [4, 4, 12, 12, 40, 400, 8_000, 30_000];

/// One kernel and its oracle.
pub struct Trial {
    seed: u64,
    rng: Rng,
    inbound: Inbound,
    kernel: Kernel,
    oracle: Oracle,
    in_force: Option<(Random, PolicyId)>,
    pairs: usize,
    rules: usize,
    /// How often each reason was right.
    seen: BTreeMap<Reason, usize>,
}

impl Trial {
    pub fn new(inbound: Inbound, seed: u64) -> Self {
        println!("POLICY_TEST_SEED={seed} (inbound {inbound:?})");
        let kernel = Kernel::open(DenyAction::Drop, inbound).unwrap_or_else(|e| panic!("{e:#}"));
        Self {
            seed,
            rng: Rng::with_seed(seed),
            inbound,
            oracle: Oracle::new(identity(true), false),
            kernel,
            in_force: None,
            pairs: 0,
            rules: 0,
            seen: BTreeMap::new(),
        }
    }

    /// As many packets under each of as many policies.
    pub fn run(mut self, policies: usize, packets: usize) {
        let begin = Instant::now();
        for round in 0..policies {
            let floor = policies::floor(&mut self.rng);
            let size = SIZES[round % SIZES.len()];
            self.fresh_sandbox();
            // The second is a change under way: what was remembered stays.
            for _ in 0..2 {
                let random = policies::policy(&mut self.rng, &floor, size);
                self.publish(random);
                self.judge(packets / 2);
            }
        }
        let Self { pairs, rules, seen, .. } = &self;
        println!("{pairs} pairs, {rules} rules compared, in {:.1?}: {seen:?}", begin.elapsed());
        assert!(*pairs > policies * packets / 2, "too few frames could be run");
        let missing: Vec<_> = self.expected().filter(|reason| !seen.contains_key(reason)).collect();
        assert!(missing.is_empty(), "the packets do not reach {missing:?}");
    }

    /// Every reason that a sandbox with a policy can meet.
    fn expected(&self) -> impl Iterator<Item = Reason> {
        let host_only = self.inbound == Inbound::Host;
        Reason::counted().filter(move |reason| match reason {
            Reason::NoPolicy => false,
            // Without a proxy nothing is handed over, and it has reasons of its own.
            Reason::ByName | Reason::AllowName => false,
            Reason::InboundRefused => host_only,
            _ => true,
        })
    }

    fn fresh_sandbox(&mut self) {
        let identity = identity(self.rng.u8(..4) > 0);
        self.kernel.sandbox(identity.mac, &identity.addresses).expect("a slot is prepared");
        self.oracle = Oracle::new(identity, self.inbound == Inbound::Host);
    }

    fn publish(&mut self, random: Random) {
        let compiled = policy::compile(&random.policy, &random.floor);
        let id = self.kernel.publish(&compiled).unwrap_or_else(|e| panic!("{e:#}"));
        self.oracle.publish(random.policy.clone(), random.floor.clone());
        self.in_force = Some((random, id));
    }

    fn judge(&mut self, count: usize) {
        let nets =
            self.in_force.as_ref().map(|(random, _)| random.nets.clone()).unwrap_or_default();
        let mut rng = self.rng.fork();
        let mut packets = Packets::near(&nets, &mut rng);
        for _ in 0..count {
            match packets.draw() {
                Packet::Out(frame) => self.out(&frame),
                Packet::In(frame, origin) if is_runnable(frame.bytes()) => {
                    let seen = self.kernel.to_sandbox(frame.bytes(), origin);
                    let law = self.oracle.to_sandbox(frame.bytes(), origin);
                    self.compare(&frame, seen.unwrap_or_else(|e| panic!("{e:#}")), &law.into());
                }
                Packet::In(..) => {}
            }
        }
    }

    fn out(&mut self, frame: &Frame) {
        let law = self.oracle.from_sandbox(frame.bytes());
        if !is_runnable(frame.bytes()) || self.pairs.is_multiple_of(4) {
            let seen = self.kernel.early_drop(frame.bytes()).unwrap_or_else(|e| panic!("{e:#}"));
            let left_to_tc = matches!(
                law.reason,
                Reason::Fragment | Reason::NeighborSpoof | Reason::ProxyUnavailable
            );
            if law.reason.passes() || left_to_tc {
                assert_eq!(seen.action, Action::Pass, "{}", self.report(frame, &seen, &law));
            } else {
                self.compare(frame, seen, &law);
            }
        }
        if is_runnable(frame.bytes()) {
            let seen = self.kernel.from_sandbox(frame.bytes()).unwrap_or_else(|e| panic!("{e:#}"));
            self.compare(frame, seen, &law);
        }
    }

    /// Equal verdicts, equal reasons of drops, equal rules.
    fn compare(&mut self, frame: &Frame, seen: Outcome, law: &Judgement) {
        self.pairs += 1;
        *self.seen.entry(law.reason).or_default() += 1;
        let passed = seen.action == Action::Pass;
        // The kernel asks for line 3 last: of two reasons to pass, it may name the other one.
        // And it walks a chain of extension headers before it looks how long the datagram says to be:
        // of two reasons to drop, it may name that of a header behind the end.
        let same_reason = match (law.reason, seen.reason) {
            (Reason::Reply, Some(reason)) => reason.passes(),
            (Reason::ExtensionHeaders, Some(Reason::IpOptions | Reason::Fragment)) => true,
            (law, seen) => seen == Some(law),
        };
        let same = passed == law.reason.passes() && same_reason;
        assert!(same, "{}", self.report(frame, &seen, law));
        if let Some(event) = seen.event {
            self.rules += 1;
            assert_eq!(self.rule_of(&event), law.rule, "{}", self.report(frame, &seen, law));
        }
    }

    /// The rule that an event names; it has to be one of the policy in force.
    fn rule_of(&self, event: &Event) -> Option<RuleRef> {
        let (random, id) = self.in_force.as_ref()?;
        let reason = Reason::from_code(event.reason)?;
        let by_policy = reason.line() >= 4;
        assert!(!by_policy || event.policy == id.0, "the event is of another policy: {event:?}");
        policy::rule(&random.policy, &random.floor, reason, event.rule)
    }

    fn report(&self, frame: &Frame, seen: &Outcome, law: &Judgement) -> String {
        let network = self.in_force.as_ref().map(|(random, _)| {
            let text = random.network.to_string();
            let shown =
                text.get(..4_000).map_or(text.clone(), |start| format!("{start}… (use the seed)"));
            format!("{shown}\n  floor:  {:?}", random.floor)
        });
        format!(
            "\nkernel and oracle disagree at pair {}, POLICY_TEST_SEED={}\n  \
             frame:  {frame:?}\n  kernel: {seen:?}\n  oracle: {law:?}\n  policy: {}\n",
            self.pairs,
            self.seed,
            network.unwrap_or_default(),
        )
    }
}

fn identity(mac_known: bool) -> Identity {
    Identity {
        mac: mac_known.then_some(SANDBOX.mac),
        addresses: vec![SANDBOX.v4.into(), SANDBOX_TOO.into(), SANDBOX.v6.into()],
    }
}
