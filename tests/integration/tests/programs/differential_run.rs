//! Runs pairs of policies and packets and compares the verdicts.

#![expect(clippy::print_stdout, reason = "the seed has to be known to run a failure again")]

use std::{collections::BTreeMap, time::Instant};

use fastrand::Rng;
use policy_agent::{
    dataplane::{DenyAction, InboundSource, PolicyId, TableKind},
    policy,
};
use policy_common::{event::VerdictEvent, reason::Reason};
use policy_integration::{
    oracle_input,
    program_runner::{FrameAction, ProgramRunner, RunOutcome, is_runnable},
    random::{
        PacketGenerator, RandomPacket,
        random_policies::{self, RandomPolicy},
    },
};
use policy_oracle::{OracleIdentity, OracleReason, OracleVerdict, PacketOracle};
use policy_testbed::packets::{
    EthernetFrame,
    test_hosts::{SANDBOX, SANDBOX_SECOND_V4},
};

/// Sizes of lists: many small ones, and some that make deep and wide tables.
const LIST_SIZES: [usize; 8] = [4, 4, 12, 12, 40, 400, 8_000, 30_000];

/// One kernel and its oracle.
pub(crate) struct DifferentialRun {
    seed: u64,
    rng: Rng,
    inbound: InboundSource,
    programs: ProgramRunner,
    oracle: PacketOracle,
    active_policy: Option<(RandomPolicy, PolicyId)>,
    pairs_compared: usize,
    rules_compared: usize,
    /// How often each reason occurred in both.
    reasons_seen: BTreeMap<Reason, usize>,
}

impl DifferentialRun {
    pub(crate) fn new(inbound: InboundSource, tables: TableKind, seed: u64) -> Self {
        println!("POLICY_TEST_SEED={seed} (inbound {inbound:?}, tables {tables:?})");
        let kernel = ProgramRunner::open_with_tables(DenyAction::Drop, inbound, tables)
            .unwrap_or_else(|e| panic!("{e:#}"));
        Self {
            seed,
            rng: Rng::with_seed(seed),
            inbound,
            oracle: PacketOracle::new(oracle_identity(true), false),
            programs: kernel,
            active_policy: None,
            pairs_compared: 0,
            rules_compared: 0,
            reasons_seen: BTreeMap::new(),
        }
    }

    /// Runs this number of packets under each of this number of policies.
    pub(crate) fn run(mut self, policies: usize, packets: usize) {
        let begin = Instant::now();
        for round in 0..policies {
            let floor = random_policies::random_floor_or_default(&mut self.rng);
            let size = LIST_SIZES[round % LIST_SIZES.len()];
            self.reset_sandbox();
            // The second iteration is a policy update: connection state is kept.
            for _ in 0..2 {
                let random = random_policies::random_policy(&mut self.rng, &floor, size);
                self.publish(random);
                self.compare_packets(packets / 2);
            }
        }
        let Self { pairs_compared: pairs, rules_compared: rules, reasons_seen: seen, .. } = &self;
        println!("{pairs} pairs, {rules} rules compared, in {:.1?}: {seen:?}", begin.elapsed());
        assert!(*pairs > policies * packets / 2, "too few frames could be run");
        let missing: Vec<_> =
            self.expected_reasons().filter(|reason| !seen.contains_key(reason)).collect();
        assert!(missing.is_empty(), "the packets do not reach {missing:?}");
    }

    /// Every reason that can occur for a sandbox with a policy.
    fn expected_reasons(&self) -> impl Iterator<Item = Reason> {
        let host_only = self.inbound == InboundSource::Host;
        Reason::kernel_counted().filter(move |reason| match reason {
            // The guard is a program of its own.
            Reason::NoPolicy | Reason::Guard => false,
            // There is no proxy, so nothing is redirected. The proxy also has reasons of its own.
            Reason::ByName | Reason::AllowName => false,
            // The policies are enforced, not observed.
            Reason::WouldDeny => false,
            Reason::InboundRefused => host_only,
            _ => true,
        })
    }

    fn reset_sandbox(&mut self) {
        let identity = oracle_identity(self.rng.u8(..4) > 0);
        self.programs.reset_sandbox(identity.mac, &identity.addresses).expect("a slot is prepared");
        self.oracle = PacketOracle::new(identity, self.inbound == InboundSource::Host);
    }

    fn publish(&mut self, random: RandomPolicy) {
        let compiled = policy::compile_policy(&random.policy, &random.floor);
        let id = self.programs.publish(&compiled).unwrap_or_else(|e| panic!("{e:#}"));
        self.oracle.publish(&random.network, random.internet, &random.floor_lists);
        self.active_policy = Some((random, id));
    }

    fn compare_packets(&mut self, count: usize) {
        let nets =
            self.active_policy.as_ref().map(|(random, _)| random.nets.clone()).unwrap_or_default();
        let mut rng = self.rng.fork();
        let mut packets = PacketGenerator::near(&nets, &mut rng);
        for number in 0..count {
            // Every second packet is judged by the full program.
            let report = number % 2 == 1;
            self.programs.set_flow_reporting(report).unwrap_or_else(|e| panic!("{e:#}"));
            match packets.next_packet() {
                RandomPacket::FromSandbox(frame) => self.compare_from_sandbox(&frame),
                RandomPacket::ToSandbox(frame, origin) if is_runnable(frame.bytes()) => {
                    let seen = self.programs.to_sandbox(frame.bytes(), origin);
                    let law = self.oracle.to_sandbox(frame.bytes(), origin);
                    self.compare(&frame, seen.unwrap_or_else(|e| panic!("{e:#}")), &law.into());
                }
                RandomPacket::ToSandbox(..) => {}
            }
        }
    }

    fn compare_from_sandbox(&mut self, frame: &EthernetFrame) {
        let law = self.oracle.from_sandbox(frame.bytes());
        if !is_runnable(frame.bytes()) || self.pairs_compared.is_multiple_of(4) {
            let seen =
                self.programs.early_drop_in_xdp(frame.bytes()).unwrap_or_else(|e| panic!("{e:#}"));
            let left_to_tc = matches!(
                law.reason,
                OracleReason::Fragment
                    | OracleReason::NeighborSpoof
                    | OracleReason::ProxyUnavailable
            );
            // So is an ICMP error that may be about a connection of the proxy.
            let left_to_tc = left_to_tc || seen.reason.is_none() && is_icmp(frame.bytes());
            if law.reason.passes() || left_to_tc {
                assert_eq!(
                    seen.action,
                    FrameAction::Pass,
                    "{}",
                    self.disagreement(frame, &seen, &law)
                );
            } else {
                self.compare(frame, seen, &law);
            }
        }
        if is_runnable(frame.bytes()) {
            let seen =
                self.programs.from_sandbox(frame.bytes()).unwrap_or_else(|e| panic!("{e:#}"));
            self.compare(frame, seen, &law);
        }
    }

    /// Compares verdicts, reasons of drops, and rules.
    fn compare(&mut self, frame: &EthernetFrame, seen: RunOutcome, law: &OracleVerdict) {
        self.pairs_compared += 1;
        let reason = oracle_input::kernel_reason(law.reason);
        *self.reasons_seen.entry(reason).or_default() += 1;
        let passed = seen.action == FrameAction::Pass;
        // The kernel checks line 3 last, so it may report another one of two reasons to pass. It
        // also parses the extension headers before it compares the datagram's length, so of two
        // reasons to drop it may report one from a header beyond the end.
        let same_reason = match (reason, seen.reason) {
            (Reason::Reply, Some(reason)) => reason.passes(),
            (Reason::ExtensionHeaders, Some(Reason::IpOptions | Reason::Fragment)) => true,
            (reason, seen) => seen == Some(reason),
        };
        let same = passed == reason.passes() && same_reason;
        assert!(same, "{}", self.disagreement(frame, &seen, law));
        // A reply may pass by a rule of its destination first.
        if let Some(event) = seen.event.filter(|_| law.reason != OracleReason::Reply) {
            self.rules_compared += 1;
            assert_eq!(
                self.event_rule(&event),
                law.rule,
                "{}",
                self.disagreement(frame, &seen, law)
            );
        }
    }

    /// The rule in an event. It must belong to the policy in force.
    fn event_rule(&self, event: &VerdictEvent) -> Option<String> {
        let (random, id) = self.active_policy.as_ref()?;
        let reason = Reason::from_code(event.reason_code)?;
        let by_policy = reason.line() >= 4;
        assert!(!by_policy || event.policy_id == id.0, "the event is of another policy: {event:?}");
        let rule = policy::resolve_rule(&random.policy, &random.floor, reason, event.rule_index)?;
        Some(rule.to_string())
    }

    fn disagreement(
        &self,
        frame: &EthernetFrame,
        seen: &RunOutcome,
        law: &OracleVerdict,
    ) -> String {
        let network = self.active_policy.as_ref().map(|(random, _)| {
            let text = random.network.to_string();
            let shown =
                text.get(..4_000).map_or(text.clone(), |start| format!("{start}… (use the seed)"));
            format!("{shown}\n  floor:  {:?}", random.floor_lists)
        });
        format!(
            "\nkernel and oracle disagree at pair {}, POLICY_TEST_SEED={}\n  \
             frame:  {frame:?}\n  kernel: {seen:?}\n  oracle: {law:?}\n  policy: {}\n",
            self.pairs_compared,
            self.seed,
            network.unwrap_or_default(),
        )
    }
}

/// Whether a frame holds ICMP, or IPv6 with extension headers that may precede it.
fn is_icmp(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(23) == Some(&1),
        Some([0x86, 0xdd]) => frame.get(20).is_some_and(|next| ![6, 17].contains(next)),
        _ => false,
    }
}

fn oracle_identity(mac_known: bool) -> OracleIdentity {
    OracleIdentity {
        mac: mac_known.then_some(SANDBOX.mac),
        addresses: vec![SANDBOX.v4.into(), SANDBOX_SECOND_V4.into(), SANDBOX.v6.into()],
    }
}
