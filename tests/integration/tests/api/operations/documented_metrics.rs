//! `docs/metrics.md` lists exactly the metrics of the agent, with their types and labels.

use std::collections::{BTreeMap, BTreeSet};

use policy_testbed::{
    named_internet::client_hello,
    test_servers::HTTPS_PORT,
    testbed::{DomainScenario, SharedTestbed},
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[proxy]\nresolvers = [\"8.8.8.8:53\"]\n\
     [gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\nhttps = \"[::]:443\"\n",
);

const PAGE: &str = include_str!("../../../../../docs/metrics.md");

/// A metric's type and labels.
type DocumentedMetric = (String, BTreeSet<String>);

/// Parses the table of metrics in the document.
fn documented() -> BTreeMap<String, DocumentedMetric> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let [name, kind, _, labels, ..] = cells[..] else { return None };
        let name = name.strip_suffix('`').filter(|name| name.starts_with("policy_"))?;
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some((name.to_owned(), (kind.to_owned(), labels)))
    };
    PAGE.lines().filter_map(row).collect()
}

/// Parses the agent's metrics.
fn exposed(text: &str) -> BTreeMap<String, DocumentedMetric> {
    let mut metrics = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            metrics.insert(name.to_owned(), (kind.to_owned(), labels(text, name)));
        }
    }
    metrics
}

/// The labels of a metric's samples, except a histogram's `le`.
fn labels(text: &str, name: &str) -> BTreeSet<String> {
    let sample = |line: &str| {
        let sample = line.strip_prefix(name)?;
        let sample = sample.strip_prefix("_count").unwrap_or(sample);
        let (inner, _) = sample.strip_prefix('{')?.rsplit_once('}')?;
        Some(inner.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect())
    };
    text.lines().filter_map(sample).flat_map(|labels: Vec<String>| labels).collect()
}

#[test]
fn every_metric_is_on_the_page_and_no_other() {
    let scene = DomainScenario::new(&TESTBED, "documented");
    let sandbox = &scene.sandbox;
    // Metrics with labels appear after their first count.
    sandbox.assert_refused("8.8.8.9");
    let _ = sandbox.close_after(
        scene.denied_site.v4,
        HTTPS_PORT,
        client_hello::hello_records(&scene.denied_site.name),
    );
    sandbox.assert_name_denied(&scene.denied_site.name, "name_not_allowed");
    let _ = sandbox.curl_public_url("http", "/").run();
    let allowed = sandbox.curl(&format!("https://{}/", scene.allowed_site.name)).run();
    assert_eq!(allowed.status, 200, "{allowed:?}");
    let ruled = &scene.allowed_subdomain.name;
    sandbox.apply_network(json!({"allowOut": [ruled], "denyOut": ["0.0.0.0/0"],
        "rules": {ruled.as_str(): [{"transform": {"headers": {"x-team": "red"}}}]}}));
    let url = format!("https://{ruled}/");
    let unverified = sandbox.curl(&url).with_arguments(&["--insecure"]).run();
    assert_eq!(unverified.status, 502, "{unverified:?}");
    let observed = sandbox.testbed.cli(&["observe", &sandbox.id]);
    assert_eq!(observed.exit_code, 0, "{observed:?}");
    sandbox.assert_reaches("8.8.8.9");
    let text = sandbox.testbed.request("GET", "/metrics", &Value::Null).body;
    let (exposed, documented) = (exposed(&text), documented());
    assert!(!documented.is_empty(), "the page has a table");
    let names =
        |metrics: &BTreeMap<String, DocumentedMetric>| metrics.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&exposed), names(&documented));
    for (name, metric) in &exposed {
        assert_eq!(Some(metric), documented.get(name), "{name}");
    }
}
