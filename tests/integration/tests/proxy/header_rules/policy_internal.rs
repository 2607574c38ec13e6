//! `http://policy.internal/`: what a sandbox may know of its own policy.

use policy_testbed::{
    named_internet::curl::CurlResult,
    testbed::{RESOLVER_CONFIG, TestSandbox, Testbed, parse_ip},
};
use serde_json::json;

use super::{CREDENTIAL, TESTBED, authorization};

#[track_caller]
fn ask(sandbox: &TestSandbox, path: &str) -> CurlResult {
    sandbox.curl_policy_host(path).run()
}

#[test]
fn it_says_what_it_is_and_changes_nothing() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&["some.example"]);
    let overview = ask(&sandbox, "/");
    assert_eq!(overview.status, 200, "{overview:?}");
    assert!(overview.text().contains("http://policy.internal/explain?url="), "{overview:?}");
    assert_eq!(ask(&sandbox, "/nothing-here").status, 404);
    let changed = sandbox.curl_policy_host("/policy");
    assert_eq!(changed.with_arguments(&["-X", "PUT", "-d", "{}"]).run().status, 405);
}

#[test]
fn the_policy_is_shown_without_the_values_of_headers() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({
        "allowOut": ["shown.rules.example"], "denyOut": ["0.0.0.0/0"],
        "rules": { "shown.rules.example": authorization(CREDENTIAL) },
    }));
    let shown = ask(&sandbox, "/policy");
    assert_eq!(shown.status, 200, "{shown:?}");
    let page = shown.page_json();
    assert_eq!(page["sandboxID"], sandbox.id.as_str());
    assert_eq!(page["network"]["allowOut"], json!(["shown.rules.example"]));
    let headers = &page["network"]["rules"]["shown.rules.example"]["headers"];
    assert_eq!(*headers, json!(["authorization"]), "{page}");
    assert!(!shown.text().contains(CREDENTIAL), "{page}");
}

#[test]
fn a_verdict_comes_with_what_would_allow_it() {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("explained.example");
    sandbox.allow_only(&[&site.name, "8.8.8.8", "loopback.example"]);
    let explain = |url: &str| ask(&sandbox, &format!("/explain?url={url}")).page_json();
    let allowed = explain("https://explained.example/path");
    assert_eq!((&allowed["allowed"], &allowed["reason"]), (&json!(true), &json!("allow_name")));
    assert_eq!(allowed["rule"]["entry"], "explained.example");
    let denied = explain("https://other.example/");
    assert_eq!((&denied["allowed"], &denied["line"]), (&json!(false), &json!(7)), "{denied}");
    assert_eq!(denied["allowEntry"], "other.example");
    assert_eq!(explain("8.8.8.8")["allowed"], true);
    assert_eq!(explain("http://1.1.1.1:8080/")["allowEntry"], "1.1.1.1");
    let problem = ask(&sandbox, "/explain?url=ssh://explained.example/");
    assert_eq!(problem.status, 400, "{problem:?}");
    assert_eq!(ask(&sandbox, "/explain").status, 400);
}

#[test]
fn nothing_is_said_of_what_the_operator_denies_and_why() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&["some.example"]);
    for address in ["10.1.2.3", "169.254.169.254"] {
        let denied = ask(&sandbox, &format!("/explain?url=http://{address}/")).page_json();
        assert_eq!(denied["reason"], "platform_deny", "{denied}");
        assert!(denied.get("rule").is_none(), "{denied}");
    }
}

#[test]
fn its_own_denials_are_listed_and_nobody_elses() {
    let (sandbox, other) = (TESTBED.add_sandbox(), TESTBED.add_sandbox());
    for (sandbox, name) in [(&sandbox, "own.denied.example"), (&other, "others.denied.example")] {
        sandbox.allow_only(&["some.example"]);
        let url = format!("http://{name}/");
        sandbox
            .curl(&url)
            .resolving_to(parse_ip("192.0.2.1"))
            .run()
            .assert_refused(403, "name_not");
        sandbox.assert_name_denied(name, "name_not_allowed");
    }
    let listed = ask(&sandbox, "/denials");
    let entry = &listed.page_json()["entries"][0];
    assert_eq!(entry["name"], "own.denied.example", "{listed:?}");
    assert_eq!(entry["allowEntry"], "own.denied.example");
    assert!(!listed.text().contains("others.denied"), "{listed:?}");
}

#[test]
fn the_operator_may_give_it_another_name_or_none() {
    let config = format!("{RESOLVER_CONFIG}policy_host = \"\"\n");
    let stage = Testbed::with_names(&config);
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&["some.example"]);
    ask(&sandbox, "/").assert_refused(403, "name_not_allowed");
    drop(sandbox);
    drop(stage);
    let config = format!("{RESOLVER_CONFIG}policy_host = \"Net.example\"\n");
    let sandbox = Testbed::with_names(&config).add_sandbox();
    sandbox.allow_only(&["some.example"]);
    let curl = sandbox.curl("http://net.example/").resolving_to(parse_ip("192.0.2.1"));
    let overview = curl.run();
    assert!(overview.text().contains("http://net.example/policy"), "{overview:?}");
    ask(&sandbox, "/").assert_refused(403, "name_not_allowed");
}
