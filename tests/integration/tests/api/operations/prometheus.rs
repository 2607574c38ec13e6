//! A real Prometheus scrapes the agent, takes the shipped alerts, and answers every query of the
//! shipped dashboard.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use policy_testbed::{
    named_internet::client_hello,
    test_servers::HTTPS_PORT,
    testbed::{DomainScenario, OrFail as _, SharedTestbed, Testbed},
    wait::eventually,
};
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../../../dist/grafana/policy-agent.json");
const ALERTS: &str = include_str!("../../../../../dist/prometheus/policy-agent.rules.yml");

/// The port of Prometheus in the test's own namespace.
const PROMETHEUS: &str = "127.0.0.1:9090";
const TOKEN: &str = "scrape-token";

static TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[proxy]\nresolvers = [\"8.8.8.8:53\"]\n\
     [metrics]\nlisten = \"127.0.0.1:9464\"\ntoken = \"scrape-token\"\n\
     [gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\nhttps = \"[::]:443\"\n",
);

/// A running Prometheus, which ends with the test.
struct PrometheusServer(Child);

impl Drop for PrometheusServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl PrometheusServer {
    /// Starts it in the namespace of the agent, which it scrapes every second.
    #[track_caller]
    fn start(stage: &Testbed) -> Self {
        let directory = stage.agent().directory().to_owned();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs:\n  - job_name: policy-agent\n    \
             authorization: {{ credentials: {TOKEN} }}\n    \
             static_configs: [{{ targets: [\"127.0.0.1:9464\"] }}]\n"
        );
        fs::write(directory.join("prometheus.yml"), config).or_fail("writing");
        fs::write(directory.join("alerts.yml"), ALERTS).or_fail("writing");
        let log = fs::File::create(directory.join("prometheus.log")).or_fail("a log");
        let mut command = stage.network.host.command("prometheus").or_fail("entering the host");
        command.arg(format!("--config.file={}", directory.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()));
        command.arg(format!("--web.listen-address={PROMETHEUS}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().or_fail("starting prometheus"))
    }
}

/// Asks Prometheus' API. `None` while it does not answer.
fn ask(stage: &Testbed, path: &str, query: &str) -> Option<Value> {
    let mut curl = stage.network.host.command("curl").ok()?;
    curl.args(["-s", "--max-time", "30", "-G", "--data-urlencode", &format!("query={query}")]);
    let output = curl.arg(format!("http://{PROMETHEUS}/api/v1/{path}")).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

/// The queries of the dashboard, as Grafana sends them for all hosts and sandboxes.
fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).or_fail("the dashboard is no JSON");
    let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array());
    let queries = targets.flatten().filter_map(|target| target["expr"].as_str());
    let fill_in = |query: &str| {
        let all = query.replace("$instance", ".*").replace("$sandbox", ".*");
        all.replace("$__rate_interval", "30s")
    };
    queries.map(fill_in).collect()
}

/// Traffic of every kind that the dashboard shows.
fn make_traffic(scene: &DomainScenario) {
    let sandbox = &scene.sandbox;
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
    let observed = sandbox.testbed.cli(&["observe", &sandbox.id]);
    assert_eq!(observed.exit_code, 0, "{observed:?}");
    sandbox.assert_reaches("8.8.8.9");
}

#[test]
fn prometheus_takes_metrics_and_alerts_and_answers_the_dashboard() {
    let scene = DomainScenario::new(&TESTBED, "scraped");
    make_traffic(&scene);
    let stage = &scene.sandbox.testbed;
    let _prometheus = PrometheusServer::start(stage);
    let result = |query: &str| {
        let answer = ask(stage, "query", query)?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().filter(|result| !result.is_empty())
    };
    let log = || fs::read_to_string(stage.agent().directory().join("prometheus.log"));
    let up = || result("up{job=\"policy-agent\"} == 1");
    eventually("it scrapes the agent", up).or_fail(&log().unwrap_or_default());
    let queries = dashboard_queries();
    assert!(queries.len() > 10, "{queries:?}");
    for query in &queries {
        eventually(query, || result(query)).or_fail("an answer with data");
    }
    let rules = ask(stage, "rules", "").or_fail("the rules");
    let rules = rules["data"]["groups"][0]["rules"].as_array().cloned().or_fail("rules");
    assert_eq!(rules.len(), ALERTS.matches("- alert:").count());
    for rule in rules {
        assert_ne!(rule["health"], "err", "{rule}");
        assert!(rule["state"] != "firing" || rule["name"] == "PolicyLogLinesLost", "{rule}");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts() {
    let directory = tempfile::tempdir().or_fail("a directory");
    let path = directory.path().join("alerts.yml");
    fs::write(&path, ALERTS).or_fail("writing");
    let output = Command::new("promtool").args(["check", "rules"]).arg(&path).output();
    let output = output.or_fail("promtool");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
