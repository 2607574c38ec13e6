//! What the guard leaves alone: other interfaces, the host itself, answers, and connections through
//! the egress proxy.

use policy_testbed::{
    probe::{self, ProbeKind, ProbeResult},
    test_servers::ECHO_PORT,
    testbed::{Testbed, parse_ip},
};
use serde_json::json;

use super::{GUARD_NFTABLES, deny_all};

fn assert_others_unaffected(config: &str) {
    let stage = Testbed::with_config(config);
    let (sandbox, other) = (stage.add_sandbox(), stage.add_sandbox());
    deny_all(&sandbox);
    // The agent does not know the other one: the host routes everything.
    other.assert_reaches("8.8.8.9");
    other.assert_reaches("2001:db8:1::1");
    let host = &stage.network.host;
    for how in [ProbeKind::Tcp(ECHO_PORT), ProbeKind::Udp(ECHO_PORT), ProbeKind::Ping] {
        assert_eq!(probe::probe(host, how, parse_ip("8.8.8.8")), ProbeResult::Answered, "{how}");
    }
    // Answers to the host, and of the host.
    for address in sandbox.addresses() {
        assert_eq!(probe::probe(host, ProbeKind::Ping, address), ProbeResult::Answered);
    }
    sandbox.apply_network(json!({ "allowOut": ["8.8.8.8"], "denyOut": ["0.0.0.0/0"] }));
    sandbox.assert_reaches("8.8.8.8");
}

#[test]
fn other_interfaces_and_the_host_are_not_affected() {
    assert_others_unaffected("");
}

#[test]
fn other_interfaces_and_the_host_are_not_affected_by_nftables() {
    assert_others_unaffected(GUARD_NFTABLES);
}

/// A mark that shares no bit with that of packets for the egress proxy.
fn assert_names_work(config: &str) {
    let stage = Testbed::with_names(&format!(
        "{config}guard_mark = 0x02000000\n{}",
        policy_testbed::testbed::RESOLVER_CONFIG
    ));
    let site = stage.add_site("guarded.example");
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&[&site.name, "8.8.8.9"]);
    for scheme in ["http", "https"] {
        let reply = sandbox.curl(&format!("{scheme}://{}/", site.name)).run();
        assert_eq!(reply.status, 200, "{}", reply.stderr);
    }
    sandbox.assert_reaches("8.8.8.9");
}

#[test]
fn names_work_whatever_the_mark() {
    assert_names_work("[dataplane]\n");
}

#[test]
fn names_work_with_nftables() {
    assert_names_work("[dataplane]\nguard = \"nftables\"\n");
}
