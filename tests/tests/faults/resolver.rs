//! A resolver that is dead, broken, or that lies.

use std::time::Instant;

use hickory_proto::rr::RecordType;
use policy_tests::{
    names::zone::Answer,
    patience::eventually,
    stage::{Guest, OPENED, OrFail as _, RESOLVERS, Stage, ip},
};

use super::took;

const NAME: &str = "site.faulty.example";

/// Where lies lead: cloud metadata, a private address, the host itself, and nowhere.
const LIES: [&str; 5] =
    ["169.254.169.254", "10.99.0.1", "192.0.2.1", "127.0.0.1", "::ffff:10.99.0.1"];

#[test]
fn a_resolver_that_is_dead_or_lies_opens_nothing_and_closes_no_address() {
    let stage = Stage::with_names(RESOLVERS);
    let sandbox = stage.sandbox();
    let site = stage.site(NAME);
    let zone = &stage.names().zone;
    sandbox.may_only_reach(&[NAME, OPENED[0], OPENED[1]]);
    let good = Answer::of(&[site.v4]).with_ttl(0);
    zone.set(NAME, good.clone());
    answers(&sandbox);
    let tally = sandbox.tally();
    for bad in [good.clone().silent(), good.clone().failing_for(RecordType::A)] {
        zone.set(NAME, bad);
        fails(&sandbox, "name_unresolved");
        recovers(&sandbox, good.clone());
    }
    for lie in LIES.map(ip) {
        let before = stage.names().visits(lie);
        zone.set(NAME, Answer::of(&[lie]).with_ttl(0));
        fails(&sandbox, "");
        assert_eq!(stage.names().visits(lie), before, "{lie}");
    }
    recovers(&sandbox, good);
    tally.is_clean("resolver dead or lying");
}

fn fetch(sandbox: &Guest) -> bool {
    sandbox.curl(&format!("https://{NAME}/")).misled_to(ip("203.0.113.10")).run().exit == 0
}

#[track_caller]
fn answers(sandbox: &Guest) {
    assert!(fetch(sandbox), "{NAME} does not answer");
}

#[track_caller]
fn fails(sandbox: &Guest, reason: &str) {
    assert!(!fetch(sandbox), "{NAME} answers");
    sandbox.event("the denial", |event| {
        let why = event["reason"].as_str().unwrap_or_default();
        event["name"] == NAME && event["verdict"] == "denied" && why.contains(reason)
    });
}

#[track_caller]
fn recovers(sandbox: &Guest, good: Answer) {
    let begin = Instant::now();
    sandbox.stage.names().zone.set(NAME, good);
    let again = eventually("the name works again", || fetch(sandbox).then_some(()));
    again.or_fail("mending the resolver");
    took("resolver: a fetch after it is mended", begin);
}
