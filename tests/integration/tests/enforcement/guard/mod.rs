//! The guard behind TC, which drops what comes from a sandbox's interface past the programs there.

mod recreated_interface;
mod removal;
mod tc_bypass;
mod unaffected_traffic;

use std::process::Command;

use policy_testbed::{
    network::{NetworkNamespace, command},
    probe::{self, ProbeKind, ProbeResult},
    test_servers::ECHO_PORT,
    testbed::{OrFail as _, TestSandbox, parse_ip},
    wait::eventually,
};
use serde_json::json;

const GUARD_OFF: &str = "[dataplane]\nguard = \"off\"";
const GUARD_NFTABLES: &str = "[dataplane]\nguard = \"nftables\"";

const KINDS: [ProbeKind; 3] =
    [ProbeKind::Tcp(ECHO_PORT), ProbeKind::Udp(ECHO_PORT), ProbeKind::Ping];
/// Destinations of both families that are open unless a policy denies them, and one that the floor
/// denies.
const DESTINATIONS: [&str; 3] = ["8.8.8.8", "2001:db8:1::1", "169.254.169.254"];

/// Denies everything to a sandbox.
fn deny_all(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"] }));
}

/// Asserts that all destinations answer, sooner or later.
fn assert_reaches_everything(sandbox: &NetworkNamespace) {
    for (how, address) in KINDS.into_iter().flat_map(|how| DESTINATIONS.map(|to| (how, to))) {
        eventually(&format!("{how} to {address} is answered"), || {
            let seen = probe::probe_expecting_silence(sandbox, how, parse_ip(address));
            (seen == ProbeResult::Answered).then_some(())
        })
        .or_fail("reaching it");
    }
}

/// Asserts that no destination answers.
fn assert_reaches_nothing(sandbox: &NetworkNamespace) {
    for (how, address) in KINDS.into_iter().flat_map(|how| DESTINATIONS.map(|to| (how, to))) {
        let seen = probe::probe_expecting_silence(sandbox, how, parse_ip(address));
        assert_ne!(seen, ProbeResult::Answered, "{how} to {address}");
    }
}

/// The number of packets that the guard dropped.
fn guarded_packets(sandbox: &TestSandbox) -> u64 {
    sandbox.status()["counters"]["guard"]["packets"].as_u64().unwrap_or(0)
}

/// The tables of nftables in a namespace.
fn nftables_in(namespace: &NetworkNamespace) -> String {
    let mut nft: Command = namespace.command("nft").or_fail("nft");
    command::run(nft.args(["list", "ruleset"])).or_fail("listing tables")
}
