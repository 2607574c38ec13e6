//! Metrics as Prometheus reads them: on a separate listener, in the format that it requests.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use policy_testbed::testbed::{OrFail as _, SharedTestbed, Testbed};
use serde_json::json;

static OPEN_TESTBED: SharedTestbed = SharedTestbed::with_config(
    "[api]\nlisten = \"127.0.0.1:3000\"\napi_keys = [\"secret\"]\n\
     [metrics]\nlisten = \"127.0.0.1:9464\"\n",
);
static TOKEN_TESTBED: SharedTestbed =
    SharedTestbed::with_config("[metrics]\nlisten = \"127.0.0.1:9464\"\ntoken = \"scrape\"\n");

/// The request header of Prometheus 2.42.
const PROMETHEUS_ACCEPT: &str = "Accept: application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// Fetches metrics with curl in the host: status, media type and body.
#[track_caller]
fn curl_metrics(stage: &Testbed, url: &str, headers: &[&str]) -> (String, String, String) {
    let mut curl = stage.network.host.command("curl").or_fail("entering the host");
    curl.args(["-s", "--max-time", "10", "-w", "\n%{http_code}\n%{content_type}"]);
    for header in headers {
        curl.args(["-H", header]);
    }
    let output = curl.arg(url).output().or_fail("curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut parts = text.rsplitn(3, '\n').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let (kind, code, body) = (part(), part(), part());
    (code, kind, body)
}

#[test]
fn the_format_is_the_one_that_is_asked_for() {
    let stage = OPEN_TESTBED.testbed();
    let url = "http://127.0.0.1:9464/metrics";
    let (code, kind, text) = curl_metrics(&stage, url, &[]);
    assert_eq!((code.as_str(), kind.as_str()), ("200", "text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.contains("# TYPE policy_build_info gauge") && !text.contains("# EOF"), "{text}");
    let (code, kind, text) = curl_metrics(&stage, url, &[PROMETHEUS_ACCEPT]);
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((code.as_str(), kind.as_str()), ("200", open_metrics));
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn promtool_finds_nothing_wrong() {
    let sandbox = OPEN_TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.assert_refused("8.8.8.8");
    let (_, _, text) = curl_metrics(&sandbox.testbed, "http://127.0.0.1:9464/metrics", &[]);
    for counter in ["policy_packets_total", "policy_denials_total", "policy_events_lost_total"] {
        assert!(text.contains(&format!("# TYPE {counter} counter")), "{counter}:\n{text}");
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut promtool = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().or_fail("it");
    let mut stdin = promtool.stdin.take().or_fail("its stdin");
    stdin.write_all(text.as_bytes()).or_fail("writing");
    drop(stdin);
    let output = promtool.wait_with_output().or_fail("promtool");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn nothing_else_is_there() {
    let stage = OPEN_TESTBED.testbed();
    for path in ["/", "/health", "/openapi.json", "/agent/v1/sandboxes", "/sandboxes"] {
        let url = format!("http://127.0.0.1:9464{path}");
        assert_eq!(curl_metrics(&stage, &url, &["X-API-Key: secret"]).0, "404", "{path}");
    }
    let post =
        curl_metrics(&stage, "http://127.0.0.1:9464/metrics", &["X-HTTP-Method-Override: POST"]);
    assert_eq!(post.0, "200");
}

#[test]
fn the_api_takes_its_key_as_prometheus_sends_it() {
    let stage = OPEN_TESTBED.testbed();
    let url = "http://127.0.0.1:3000/metrics";
    assert_eq!(curl_metrics(&stage, url, &["Authorization: Bearer secret"]).0, "200");
    for wrong in ["Authorization: Bearer wrong", "Authorization: Basic secret", "X-Other: secret"] {
        assert_eq!(curl_metrics(&stage, url, &[wrong]).0, "401", "{wrong}");
    }
}

#[test]
fn with_a_token_only_its_holders_may_read() {
    let stage = TOKEN_TESTBED.testbed();
    let url = "http://127.0.0.1:9464/metrics";
    assert_eq!(curl_metrics(&stage, url, &["Authorization: Bearer scrape"]).0, "200");
    let (code, _, body) = curl_metrics(&stage, url, &["Authorization: Bearer scrap"]);
    assert_eq!(code, "401");
    assert!(body.contains("[metrics]"), "{body}");
    assert_eq!(curl_metrics(&stage, url, &[]).0, "401");
    assert_eq!(curl_metrics(&stage, "http://127.0.0.1:9464/health", &[]).0, "401");
}
