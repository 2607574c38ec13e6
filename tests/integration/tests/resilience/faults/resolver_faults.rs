//! A resolver that is dead, broken, or malicious.

use std::time::Instant;

use hickory_proto::rr::RecordType;
use policy_testbed::{
    named_internet::dns_zone::DnsAnswer,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, RESOLVER_CONFIG, TestSandbox, Testbed, parse_ip},
    wait::eventually,
};

use super::report_duration;

const RESOLVED_NAME: &str = "site.faulty.example";

/// The addresses in malicious responses: cloud metadata, a private address, the host itself,
/// loopback, and a mapped private address.
const MISLEADING_ADDRESSES: [&str; 5] =
    ["169.254.169.254", "10.99.0.1", "192.0.2.1", "127.0.0.1", "::ffff:10.99.0.1"];

#[test]
fn a_resolver_that_is_dead_or_lies_opens_nothing_and_closes_no_address() {
    let stage = Testbed::with_names(RESOLVER_CONFIG);
    let sandbox = stage.add_sandbox();
    let site = stage.add_site(RESOLVED_NAME);
    let zone = &stage.named_internet().zone;
    sandbox.allow_only(&[RESOLVED_NAME, ALLOWED_ADDRESSES[0], ALLOWED_ADDRESSES[1]]);
    let good = DnsAnswer::with_addresses(&[site.v4]).with_ttl(0);
    zone.set_answer(RESOLVED_NAME, good.clone());
    assert_fetches(&sandbox);
    let tally = sandbox.start_counted_flood();
    for bad in [good.clone().unanswered(), good.clone().failing_for(RecordType::A)] {
        zone.set_answer(RESOLVED_NAME, bad);
        assert_fetch_denied(&sandbox, "name_unresolved");
        wait_until_fetches(&sandbox, good.clone());
    }
    for lie in MISLEADING_ADDRESSES.map(parse_ip) {
        let before = stage.named_internet().connection_count(lie);
        zone.set_answer(RESOLVED_NAME, DnsAnswer::with_addresses(&[lie]).with_ttl(0));
        assert_fetch_denied(&sandbox, "");
        assert_eq!(stage.named_internet().connection_count(lie), before, "{lie}");
    }
    wait_until_fetches(&sandbox, good);
    tally.assert_no_leak_or_loss("resolver dead or lying");
}

fn try_fetch(sandbox: &TestSandbox) -> bool {
    sandbox
        .curl(&format!("https://{RESOLVED_NAME}/"))
        .resolving_to(parse_ip("203.0.113.10"))
        .run()
        .exit_code
        == 0
}

#[track_caller]
fn assert_fetches(sandbox: &TestSandbox) {
    assert!(try_fetch(sandbox), "{RESOLVED_NAME} does not answer");
}

#[track_caller]
fn assert_fetch_denied(sandbox: &TestSandbox, reason: &str) {
    assert!(!try_fetch(sandbox), "{RESOLVED_NAME} answers");
    sandbox.wait_for_event("the denial", |event| {
        let why = event["reason"].as_str().unwrap_or_default();
        event["name"] == RESOLVED_NAME && event["verdict"] == "denied" && why.contains(reason)
    });
}

#[track_caller]
fn wait_until_fetches(sandbox: &TestSandbox, good: DnsAnswer) {
    let begin = Instant::now();
    sandbox.testbed.named_internet().zone.set_answer(RESOLVED_NAME, good);
    let again = eventually("the name works again", || try_fetch(sandbox).then_some(()));
    again.or_fail("mending the resolver");
    report_duration("resolver: a fetch after it is mended", begin);
}
