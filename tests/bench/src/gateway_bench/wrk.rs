//! Generates load with wrk in the internet. A script prints the results.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::gateway_setup::GatewaySetup;
use policy_testbed::network::{command, unique_directory};

/// The number of connections. Each has one request at a time.
const CONNECTIONS: &str = "32";

/// Prints the fields of [`WrkResult`] and the number of failed requests.
const WRK_SCRIPT: &str = "
function done(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    print(string.format('result %d %f %f %f %d', summary.requests,
        summary.requests / summary.duration * 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
";

/// The URL scheme of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UrlScheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl UrlScheme {
    /// The scheme's name in URLs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The result of one run.
pub(crate) struct WrkResult {
    /// The number of requests.
    pub(crate) requests: f64,
    /// Requests per second.
    pub(crate) requests_per_second: f64,
    /// The median latency in ms.
    pub(crate) p50_ms: f64,
    /// The 99th percentile of the latency in ms.
    pub(crate) p99_ms: f64,
}

/// Runs wrk for about `time`. wrk only accepts whole seconds.
pub(crate) fn run(lane: &GatewaySetup, scheme: UrlScheme, time: Duration) -> Result<WrkResult> {
    let directory = unique_directory("wrk")?;
    let script = directory.path().join("script.lua");
    fs::write(&script, WRK_SCRIPT)?;
    let mut wrk = lane.network.internet.command("wrk")?;
    wrk.args(["--threads", "1", "--connections", CONNECTIONS]);
    wrk.arg(format!("--duration={}s", time.as_secs_f64().ceil()));
    wrk.arg(format!("--header=Host: {}", lane.public_host())).arg("--script").arg(&script);
    wrk.arg(lane.url(scheme));
    let printed = command::run(&mut wrk)?;
    let line = printed.lines().find_map(|line| line.strip_prefix("result "));
    let line = line.with_context(|| format!("wrk has no result: {printed}"))?;
    let values = line.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let &[requests, rate, p50, p99, failed] = values.as_slice() else {
        anyhow::bail!("wrk says {line:?}");
    };
    ensure!(requests > 0.0 && failed == 0.0, "{failed} of {requests} requests failed: {printed}");
    Ok(WrkResult { requests, requests_per_second: rate, p50_ms: p50, p99_ms: p99 })
}
