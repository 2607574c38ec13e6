//! Observed sandboxes: names that the policy does not allow pass and are recorded.

use policy_testbed::{
    testbed::{OrFail as _, RESOLVER_CONFIG, SharedTestbed},
    wait::eventually,
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

#[test]
fn names_that_are_not_allowed_pass_until_the_policy_is_enforced() {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("observed.example");
    sandbox.allow_only(&["other.example"]);
    let observed = sandbox.testbed.cli(&["observe", &sandbox.id]);
    assert_eq!(observed.exit_code, 0, "{observed:?}");
    for scheme in ["http", "https"] {
        let fetched = sandbox.curl(&format!("{scheme}://{}/", site.name)).run();
        assert!(site.served_page(&fetched.page_json()), "{scheme}: {fetched:?}");
    }
    let entry = eventually("both are recorded", || {
        let denials = sandbox.testbed.cli(&["denials", &sandbox.id, "-o", "json"]).json();
        let named = |entry: &&Value| entry["name"] == "observed.example";
        let named: Vec<_> = denials.as_array()?.iter().filter(named).cloned().collect();
        (named.len() == 2).then(|| named[0].clone())
    });
    let entry = entry.or_fail("looking in the record");
    assert_eq!(entry["decision"], "would_deny");
    assert_eq!(entry["reason"], "name_not_allowed");
    assert_eq!(entry["allowEntry"], "observed.example");
    let told = sandbox.curl_policy_host("/denials").run().page_json();
    assert_eq!(told["entries"][0]["wouldDeny"], true, "{told}");
    assert_eq!(told["entries"][0]["allowed"], true, "{told}");
    let suggested = sandbox.testbed.cli(&["suggest", &sandbox.id]).json();
    assert_eq!(suggested["network"]["allowOut"], json!(["observed.example"]));
    let ended = sandbox.testbed.cli(&["observe", &sandbox.id, "--end"]);
    assert_eq!(ended.exit_code, 0, "{ended:?}");
    sandbox.curl(&format!("http://{}/", site.name)).run().assert_refused(403, "name_not_allowed");
}
