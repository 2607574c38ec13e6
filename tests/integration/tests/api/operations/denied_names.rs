//! A denied name is counted like a denied packet, everywhere that denials are reported.

use policy_testbed::{
    named_internet::client_hello,
    test_servers::HTTPS_PORT,
    testbed::{DomainScenario, OrFail as _, RESOLVER_CONFIG, SharedTestbed},
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

#[test]
fn a_refused_name_is_in_every_count() {
    let scene = DomainScenario::new(&TESTBED, "counted");
    let sandbox = &scene.sandbox;
    let hello = client_hello::hello_records(&scene.denied_site.name);
    for _ in 0..3 {
        let _ = sandbox.close_after(scene.denied_site.v4, HTTPS_PORT, &hello);
    }
    sandbox.assert_name_denied(&scene.denied_site.name, "name_not_allowed");
    sandbox.assert_refused("8.8.8.9");
    let status = sandbox.status();
    assert_eq!(status["counters"]["name_not_allowed"], json!({ "packets": 3, "bytes": 0 }));
    let by_rule = status["counters"]["deny_out"]["packets"].as_u64().or_fail("denied packets");
    assert_eq!(status["denied"]["packets"], by_rule + 3);
    let list = sandbox.testbed.cli(&["get"]).stdout;
    let row = list.lines().find(|line| line.contains(&sandbox.id)).or_fail(&list);
    assert!(row.contains(&format!(" {} ", by_rule + 3)), "{row}");
    let is_counted = |reason: &str, count: u64| {
        let metrics = sandbox.testbed.request("GET", "/metrics", &Value::Null).body;
        let id = &sandbox.id;
        let line =
            format!("policy_denials_total{{sandbox=\"{id}\",reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    };
    is_counted("name_not_allowed", 3);
    is_counted("deny_out", by_rule);
    // The counter belongs to the sandbox: it survives policy changes and is removed with the
    // sandbox.
    sandbox.apply_network(json!({}));
    is_counted("name_not_allowed", 3);
    sandbox.delete();
    let metrics = sandbox.testbed.request("GET", "/metrics", &Value::Null).body;
    assert!(!metrics.contains(&sandbox.id), "{metrics}");
}
