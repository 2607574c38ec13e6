//! What the operator decides for all sandboxes, and no sandbox's policy overrides.

use std::sync::Arc;

use policy_agent::policy::PLATFORM_DENY;
use policy_tests::{
    patience::eventually,
    probe::{self, How, Seen},
    server,
    stage::{Guest, MARKER_TO, OrFail as _, Shared, Stage, ip},
    world::{
        Namespace,
        host::{HOST_V4, HOST_V6, INTERNET_V4},
        internet,
        slot::Slot,
    },
};
use serde_json::{Value, json};

static DEFAULT: Shared = Shared::with("");
static OWN: Shared = Shared::with(
    r#"[dataplane]
    platform_allow = ["10.99.0.0/24", "198.51.100.7"]
    platform_deny = ["10.0.0.0/8", "1.1.1.1", "2001:db8:2::/48"]"#,
);
/// The host's addresses at the uplink are opened.
static OPEN_HOST: Shared = Shared::with(
    r#"[dataplane]
    platform_allow = ["192.0.2.1", "2001:db8:ffff::1"]
    platform_deny_add = ["1.1.1.1", "2001:db8:2::/48"]"#,
);

#[test]
fn metadata_and_private_addresses_stay_closed_even_if_allowed_by_name() {
    let sandbox = DEFAULT.sandbox();
    let entries: Vec<&str> = internet::FLOOR.into_iter().chain(["0.0.0.0/0"]).collect();
    sandbox.network(json!({ "allowOut": entries }));
    for closed in internet::FLOOR {
        sandbox.is_refused(closed);
    }
    sandbox.reaches("64:ff9b::101:101");
}

#[test]
fn the_gateway_and_other_sandboxes_are_private() {
    let (sandbox, other) = (DEFAULT.sandbox(), DEFAULT.sandbox());
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0"] }));
    sandbox.is_refused(&sandbox.identity.gateway_v4().to_string());
    sandbox.is_refused(&sandbox.identity.gateway_v6().to_string());
    sandbox.is_refused(&other.identity.v4().to_string());
    sandbox.is_refused(&other.identity.v6().to_string());
}

#[test]
fn broadcast_and_multicast_are_denied_in_silence() {
    let sandbox = DEFAULT.sandbox();
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0"] }));
    let (me, token) = (sandbox.sender(), sandbox.token());
    let many = ["255.255.255.255", "224.0.0.251", "239.255.255.250", "240.0.0.1", "ff02::fb"];
    let frames: Vec<_> = many.iter().map(|to| me.udp(ip(to), server::CLOSED, &token)).collect();
    assert!(sandbox.crossing(&frames).is_empty());
    let denied = &sandbox.status()["counters"]["platform_deny"]["packets"];
    assert_eq!(*denied, many.len());
}

#[test]
fn platform_allow_beats_platform_deny_and_deny_out() {
    let sandbox = OWN.sandbox();
    sandbox.configure(&json!({ "allowInternetAccess": false }));
    sandbox.reaches("10.99.0.1");
    sandbox.reaches("198.51.100.7");
    sandbox.is_refused("8.8.8.8");
    sandbox.network(json!({ "denyOut": ["10.99.0.1", "198.51.100.7"] }));
    sandbox.reaches("10.99.0.1");
    sandbox.reaches("198.51.100.7");
}

#[test]
fn an_own_platform_deny_replaces_the_default() {
    let sandbox = OWN.sandbox();
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0"] }));
    sandbox.is_refused("1.1.1.1");
    sandbox.is_refused("2001:db8:2::1");
    for open in ["169.254.169.254", "192.168.7.7", "fd99::1", "8.8.8.8"] {
        sandbox.reaches(open);
    }
}

#[test]
fn a_denied_ipv4_address_is_denied_in_every_ipv6_form() {
    let sandbox = OWN.sandbox();
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0", "64:ff9b::101:101", MARKER_TO] }));
    sandbox.is_refused("64:ff9b::101:101");
    let (me, token) = (sandbox.sender(), sandbox.token());
    let forms = [
        "64:ff9b::101:101",
        "2002:101:101::1",
        "2001:0:4136:e378:8000:63bf:fefe:fefe",
        "::101:101",
        "::ffff:1.1.1.1",
    ];
    let frames: Vec<_> = forms.iter().map(|to| me.udp(ip(to), server::CLOSED, &token)).collect();
    assert!(sandbox.crossing(&frames).is_empty());
}

#[test]
fn the_hosts_own_addresses_are_denied() {
    let sandbox = DEFAULT.sandbox();
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0", "192.0.2.0/24"] }));
    for own in [HOST_V4.to_string(), HOST_V6.to_string()] {
        sandbox.is_refused(&own);
        let explained = sandbox.stage.cli(&["explain", &sandbox.id, &own, "-o", "json"]);
        let answer = explained.json();
        assert_eq!((explained.code, &answer["reason"]), (3, &json!("platform_deny")), "{answer}");
        assert_eq!(answer["rule"]["list"], "host_address", "{answer}");
        let event = sandbox.event(&format!("a denial of {own}"), |event| {
            event["destination"] == own.as_str() && event["reason"] == "platform_deny"
        });
        assert_eq!(event["rule"], answer["rule"], "{event}");
    }
    sandbox.reaches("203.0.113.10");
    assert_eq!(sandbox.ping(&INTERNET_V4.to_string()), Seen::Answered, "its neighbour's");
    // An uplink's broadcast address is delivered to the host as well.
    assert_eq!(sandbox.udp("192.0.2.255", server::ECHO), Seen::Prohibited);
}

#[test]
fn what_the_host_answers_and_asks_passes_all_the_same() {
    let sandbox = DEFAULT.sandbox();
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"] }));
    let asked = probe::attempt(&sandbox.stage.world.host, How::Ping, sandbox.identity.v4().into());
    assert_eq!(asked, Seen::Answered, "the answer belongs to what the host began");
}

#[test]
fn platform_allow_opens_the_hosts_own_addresses() {
    let sandbox = OPEN_HOST.sandbox();
    sandbox.configure(&json!({ "allowInternetAccess": false }));
    for own in [HOST_V4.to_string(), HOST_V6.to_string()] {
        assert_eq!(sandbox.ping(&own), Seen::Answered, "{own}");
    }
    sandbox.is_refused(&sandbox.identity.gateway_v4().to_string());
}

#[test]
fn what_is_added_to_platform_deny_is_denied_beside_the_default() {
    let sandbox = OPEN_HOST.sandbox();
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0"] }));
    for closed in ["1.1.1.1", "2001:db8:2::1", "64:ff9b::101:101", "169.254.169.254", "fd99::1"] {
        sandbox.is_refused(closed);
    }
    sandbox.reaches("8.8.8.8");
    let explained = sandbox.stage.cli(&["explain", &sandbox.id, "1.1.1.1", "-o", "json"]).json();
    let rule = json!({ "list": "platform_deny_add", "index": 0, "entry": "1.1.1.1/32" });
    assert_eq!(explained["rule"], rule);
}

/// Waits until a ping is answered like this.
#[track_caller]
fn becomes(inside: &Namespace, address: &str, wanted: &Seen) {
    let seen = || (probe::attempt(inside, How::Ping, ip(address)) == *wanted).then_some(());
    eventually(&format!("{address} is {wanted}"), seen).or_fail("following the host's addresses");
}

#[test]
fn an_address_that_the_host_gets_is_denied_from_then_on() {
    let stage = Stage::with("");
    let sandbox = stage.sandbox();
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0"] }));
    let applied = sandbox.status()["policyId"].clone();
    let host = &stage.world.host;
    let new = ["198.51.100.77", "2001:db8:7::7", "203.0.113.129"];
    for address in new {
        let seen = probe::attempt_in_vain(&sandbox.inside, How::Ping, ip(address));
        assert_ne!(seen, Seen::Prohibited, "{address}");
    }
    let lines = "addr add 198.51.100.77/32 dev lo
                 addr add 2001:db8:7::7/128 dev lo nodad
                 route add local 203.0.113.128/25 dev lo";
    host.ip(lines).or_fail("adding addresses");
    for address in new {
        becomes(&sandbox.inside, address, &Seen::Prohibited);
    }
    sandbox.is_refused("198.51.100.77");
    sandbox.reaches("203.0.113.10");
    // The kernel has a new policy a moment before the agent says so.
    let policy = || sandbox.status()["policyId"].clone();
    let replaced = |old: &Value| {
        let new = || Some(policy()).filter(|new| new != old);
        eventually("a new policy", new).or_fail("its number")
    };
    let first = replaced(&applied);
    host.ip("addr del 198.51.100.77/32 dev lo").or_fail("removing an address");
    becomes(&sandbox.inside, "198.51.100.77", &Seen::Answered);
    replaced(&first);
    is_refused_after_a_restart(&stage, &sandbox, "2001:db8:7::7");
}

#[track_caller]
fn is_refused_after_a_restart(stage: &Arc<Stage>, sandbox: &Guest, address: &str) {
    let policy = sandbox.status()["policyId"].clone();
    stage.kill();
    sandbox.is_refused(address);
    stage.restart();
    sandbox.is_refused(address);
    assert_eq!(sandbox.status()["policyId"], policy, "what is in force is adopted");
}

#[test]
fn each_namespace_has_addresses_of_its_own() {
    let stage = DEFAULT.stage();
    let slots = ["hostone", "hosttwo"].map(|id| Slot::build(id).or_fail("building a slot"));
    let own = ["198.51.100.81", "198.51.100.82"];
    for (slot, address) in slots.iter().zip(own) {
        let line = format!("addr add {address}/32 dev lo");
        slot.namespace.ip(&line).or_fail("adding an address");
        let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
        let answer = stage.request("PUT", &path, &slot.spec(&json!({})));
        assert_eq!(answer.code, 200, "{}", answer.body);
    }
    for (slot, (own, foreign)) in slots.iter().zip([(own[0], own[1]), (own[1], own[0])]) {
        let inside = &slot.sandbox.inside;
        assert_eq!(probe::attempt(inside, How::Ping, ip(own)), Seen::Prohibited, "{own}");
        let seen = probe::attempt_in_vain(inside, How::Ping, ip(foreign));
        assert_ne!(seen, Seen::Prohibited, "{foreign} is another host's");
        let explained = |to| stage.cli(&["explain", &slot.sandbox.id, to, "-o", "json"]).json();
        assert_eq!(explained(own)["rule"]["entry"], format!("{own}/32"));
        assert_eq!(explained(foreign)["reason"], "no_rule");
        let described = json!({ "spec": slot.spec(&json!({})), "destination": own });
        let described = stage.request("POST", "/agent/v1/explain", &described).json();
        assert_eq!(described["rule"]["list"], "host_address", "{described}");
    }
    slots[1].namespace.ip(&format!("addr add {}/32 dev lo", own[0])).or_fail("adding an address");
    becomes(&slots[1].sandbox.inside, own[0], &Seen::Prohibited);
    for slot in &slots {
        let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
        let deleted = stage.request("DELETE", &path, &Value::Null);
        assert_eq!(deleted.code, 204, "{}", deleted.body);
    }
}

#[test]
fn the_configuration_is_shown_with_the_whole_floor_and_without_keys() {
    let stage = Stage::without_agent(
        "[api]\napi_keys = [\"aSecretKey\"]\n[dataplane]\nplatform_deny_add = [\"203.0.113.0/24\"]",
    );
    let config = stage.agent().config().to_string_lossy().into_owned();
    for arguments in [
        &["config", "show"][..],
        &["config", "show", "--defaults"],
        &["config", "show", "--config", &config],
        &["config", "show", "--config", &config, "--defaults", "--platform-deny-add", "9.9.9.9"],
    ] {
        let shown = stage.cli(arguments);
        assert_eq!(shown.code, 0, "{shown:?}");
        for (entry, why) in PLATFORM_DENY {
            let line = shown.stdout.lines().find(|line| line.contains(&format!("\"{entry}\"")));
            assert!(line.is_some_and(|line| line.ends_with(why)), "{entry}: {shown:?}");
        }
        assert!(!shown.stdout.contains("aSecretKey"), "{shown:?}");
        let of_file = arguments.contains(&"--config");
        assert_eq!(shown.stdout.contains("203.0.113.0/24"), of_file, "{shown:?}");
        let flag = arguments.contains(&"9.9.9.9");
        assert_eq!(shown.stdout.contains("9.9.9.9/32"), flag, "{shown:?}");
    }
    let valid = stage.cli(&["config", "check", "--config", &config]);
    assert_eq!(
        (valid.code, valid.stdout.as_str()),
        (0, "the configuration is valid\n"),
        "{valid:?}"
    );
    let wrong = stage.cli(&["config", "check", "--platform-deny-add", "evil"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.stderr.contains("platform_deny_add[0]: \"evil\""), "{wrong:?}");
}
