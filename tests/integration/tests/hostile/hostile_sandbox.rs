//! A sandbox whose own kernel is silent, and a packet socket at the far end of the uplink.

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use policy_agent::policy;
use policy_integration::random::{RandomPolicy, random_policies};
use policy_oracle::{FloorLists, OracleIdentity, OracleReason, PacketOracle};
use policy_testbed::{
    network::{
        host_router::{INTERNET_UPLINK_V4, INTERNET_UPLINK_V6, UPLINK_INTERFACE},
        sandbox::{SANDBOX_INTERFACE, format_mac},
    },
    packet_socket::{PacketSocket, contains_bytes},
    packets::{
        EthernetFrame, IpDatagram, IpPayload,
        test_hosts::{GATEWAY, SANDBOX, SANDBOX_SECOND_V4},
    },
    testbed::{MARKER_ADDRESS, OrFail as _, TestSandbox, Testbed, parse_ip},
};
use serde_json::{Value, json};

use super::crossing_check::{ArrivedFrame, ExpectedFrames};

/// The number of frames sent before the received ones are checked: the kernel queues a thousand.
const FRAMES_PER_ROUND: usize = 200;
/// The maximum number of entries in a list.
const LIST_ENTRIES: usize = 24;

/// A sandbox with a policy, its oracle, and both ends of its path.
pub(crate) struct HostileSandbox {
    seed: u64,
    sandbox: TestSandbox,
    sandbox_socket: PacketSocket,
    uplink_socket: PacketSocket,
    oracle: PacketOracle,
    floor_lists: FloorLists,
    active_config: Value,
    policy_digest: Option<[u8; 16]>,
    sent: usize,
    crossed: usize,
    reason_counts: BTreeMap<OracleReason, usize>,
}

impl HostileSandbox {
    /// Builds a testbed with one sandbox, which has the addresses in
    /// [`policy_testbed::packets::test_hosts`].
    pub(crate) fn build(seed: u64) -> Self {
        let stage =
            Testbed::with_config(&format!("[dataplane]\nplatform_allow = [\"{MARKER_ADDRESS}\"]"));
        let sandbox = stage.add_sandbox();
        silence_sandbox_kernel(&stage, &sandbox);
        pin_to_current_cpu(); // only now: the agent would inherit it
        let addresses = vec![SANDBOX.v4.into(), SANDBOX_SECOND_V4.into(), SANDBOX.v6.into()];
        let identity = OracleIdentity { mac: Some(SANDBOX.mac), addresses };
        let floor_lists =
            FloorLists { platform_allow: vec![MARKER_ADDRESS.to_owned()], ..FloorLists::default() };
        Self {
            seed,
            sandbox_socket: sandbox.open_packet_socket(),
            uplink_socket: sandbox.open_uplink_socket(),
            sandbox,
            oracle: PacketOracle::new(identity, false),
            floor_lists,
            active_config: Value::Null,
            policy_digest: None,
            sent: 0,
            crossed: 0,
            reason_counts: BTreeMap::new(),
        }
    }

    /// The number of frames sent so far.
    pub(crate) fn sent_frames(&self) -> usize {
        self.sent
    }

    /// Puts another random policy into force. Fragments depend on the policy under which they
    /// began.
    pub(crate) fn apply_random_policy(&mut self, rng: &mut Rng) -> RandomPolicy {
        loop {
            let random = random_policies::random_policy(rng, &self.floor_lists, LIST_ENTRIES);
            let digest = policy::compile_policy(&random.policy, &random.floor).digest();
            if self.policy_digest.replace(digest) == Some(digest) {
                continue;
            }
            let mut config = json!({ "network": random.network });
            if let Some(internet) = random.internet {
                config["allowInternetAccess"] = json!(internet);
            }
            self.apply_policy(&config, &random.network, random.internet);
            return random;
        }
    }

    /// Puts a policy into force that denies only what the floor denies.
    pub(crate) fn apply_allow_all(&mut self) {
        self.apply_policy(&json!({}), &json!({}), None);
    }

    fn apply_policy(&mut self, config: &Value, network: &Value, internet: Option<bool>) {
        let mut config = config.clone();
        config["mac"] = json!(format_mac(SANDBOX.mac));
        config["addresses"] = json!([SANDBOX.v4, SANDBOX_SECOND_V4, SANDBOX.v6]);
        self.sandbox.apply_config(&config);
        self.active_config = config;
        self.oracle.publish(network, internet, &self.floor_lists);
    }

    /// Sends frames and compares those that cross with the oracle's verdicts.
    pub(crate) fn send_and_check(&mut self, frames: Vec<EthernetFrame>) {
        for round in frames.chunks(FRAMES_PER_ROUND) {
            let mut expected = ExpectedFrames::default();
            for frame in round {
                let reason = self.oracle.from_sandbox(frame.bytes()).reason;
                *self.reason_counts.entry(reason).or_default() += 1;
                match reason.passes() {
                    true => expected.allow(frame.bytes()),
                    false => expected.deny(frame.bytes(), reason.label().to_owned()),
                }
                self.sandbox_socket.send(frame.bytes()).or_fail("sending a frame");
            }
            self.sent += round.len();
            self.check_arrivals(&mut expected);
        }
    }

    /// Checks all frames that cross before a final marker.
    fn check_arrivals(&mut self, expected: &mut ExpectedFrames) {
        let marker = format!("<<marker {}>>", self.sent).into_bytes();
        let payload = IpPayload::udp(40_000, 9, &marker);
        let last = IpDatagram::new(SANDBOX.v4, parse_ip(MARKER_ADDRESS), payload).to_frame();
        self.sandbox_socket.send(last.bytes()).or_fail("sending the marker");
        let seen = self.uplink_socket.receive_until(|frame| contains_bytes(frame, &marker));
        for frame in seen.or_fail("waiting for the marker") {
            match expected.classify(&frame) {
                ArrivedFrame::Allowed => self.crossed += 1,
                ArrivedFrame::FromHost => {}
                ArrivedFrame::Leaked(reason) => self.report_leak(&frame, &reason),
            }
        }
    }

    fn report_leak(&self, frame: &[u8], reason: &str) -> ! {
        panic!(
            "\nPOLICY_TEST_SEED={}: among the first {} frames one crossed that must not\n  \
             frame:  {:?}\n  oracle: {reason}\n  policy: {}\n",
            self.seed,
            self.sent,
            EthernetFrame::from_bytes(frame),
            self.active_config
        )
    }

    /// Prints the counts. A run in which almost nothing passed, or almost nothing was denied,
    /// proves nothing.
    pub(crate) fn assert_meaningful_run(&self, few: usize) {
        let Self { sent, crossed, reason_counts: reasons, .. } = self;
        println!("{sent} frames, {crossed} crossed and all of them may; {reasons:?}");
        let denied: usize =
            reasons.iter().filter(|(reason, _)| !reason.passes()).map(|(_, count)| count).sum();
        assert!(*crossed > few, "only {crossed} of {sent} frames crossed");
        assert!(denied > few, "only {denied} of {sent} frames were denied");
        let healthy = self.sandbox.testbed.agent().is_healthy();
        assert!(healthy && self.sandbox.status()["status"] == "enforcing");
    }
}

/// Two CPUs could reorder the frames of one thread, and the order of fragments matters.
fn pin_to_current_cpu() {
    let mut this = CpuSet::new();
    this.set(sched_getcpu().or_fail("this CPU")).or_fail("a set of one CPU");
    sched_setaffinity(Pid::from_raw(0), &this).or_fail("staying on this CPU");
}

/// Keeps the sandbox's kernel from replying, and makes neighbour resolution unnecessary.
fn silence_sandbox_kernel(stage: &Arc<Testbed>, sandbox: &TestSandbox) {
    let (host, internet) = (&stage.network.host, &stage.network.internet);
    sandbox
        .namespace
        .sysctl(&format!("ipv6/conf/{SANDBOX_INTERFACE}/disable_ipv6"), "1")
        .or_fail("no IPv6");
    sandbox
        .namespace
        .ip_batch(&format!("addr flush dev {SANDBOX_INTERFACE}"))
        .or_fail("no addresses");
    let beyond = format_mac(internet.interface_mac(UPLINK_INTERFACE).or_fail("the uplink's MAC"));
    let neighbour = |at: &dyn std::fmt::Display| {
        format!("neigh replace {at} lladdr {beyond} dev {UPLINK_INTERFACE} nud permanent\n")
    };
    let (v4, v6) = (neighbour(&INTERNET_UPLINK_V4), neighbour(&INTERNET_UPLINK_V6));
    let mac = format_mac(GATEWAY.mac);
    let lines = format!("{v4}{v6}link set {} address {mac}", sandbox.interface);
    host.ip_batch(&lines).or_fail("neighbours and a MAC");
}
