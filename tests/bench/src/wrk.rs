//! Generates load with wrk. A script prints the results.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::proxy_bench::resource_usage::CpuUsage;
use policy_testbed::network::{command, unique_directory};

/// The number of connections. Each has one request at a time.
const CONNECTIONS: &str = "32";

/// Prints the number of requests, their rate, two percentiles, and the number of failed requests.
const WRK_SCRIPT: &str = "
function done(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    print(string.format('result %d %f %f %f %d', summary.requests,
        summary.requests / summary.duration * 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
";

/// Requests per s, 50th and 99th percentile in ms, and the proxy's µs per request.
pub(crate) type RequestStats = [f64; 4];

/// Sends requests for a URL for about `time`; wrk only accepts whole seconds. `wrk` is the command in its
/// namespace, with the headers of the requests. `proxy` has the process IDs of the proxy.
pub(crate) fn measure_requests(
    wrk: Command,
    url: &str,
    time: Duration,
    proxy: &[u32],
) -> Result<RequestStats> {
    let before = CpuUsage::now(proxy)?;
    let [requests, rate, p50, p99] = run(wrk, url, time)?;
    let spent = before.spent_until(&CpuUsage::now(proxy)?);
    Ok([rate, p50, p99, spent.proxy * 1e6 / requests])
}

/// Requests, requests per s, 50th and 99th percentile in ms.
fn run(mut wrk: Command, url: &str, time: Duration) -> Result<[f64; 4]> {
    let directory = unique_directory("wrk")?;
    let script = directory.path().join("script.lua");
    fs::write(&script, WRK_SCRIPT)?;
    wrk.args(["--threads", "1", "--connections", CONNECTIONS]);
    wrk.arg(format!("--duration={}s", time.as_secs_f64().ceil()));
    wrk.arg("--script").arg(&script).arg(url);
    let printed = command::run(&mut wrk)?;
    let line = printed.lines().find_map(|line| line.strip_prefix("result "));
    let line = line.with_context(|| format!("wrk has no result: {printed}"))?;
    let values = line.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let &[requests, rate, p50, p99, failed] = values.as_slice() else {
        anyhow::bail!("wrk says {line:?}");
    };
    ensure!(requests > 0.0 && failed == 0.0, "{failed} of {requests} requests failed: {printed}");
    Ok([requests, rate, p50, p99])
}
