//! Requests through the gateway, beside the same through nginx and HAProxy as reverse proxies: the
//! same service in a sandbox behind each, the same load in front. All of them keep connections to the
//! service, and log every request.

mod lane;
mod load;
mod peer;

use std::time::Duration;

use anyhow::Result;

use super::{Effort, Table, proxied::usage::Usage, report::at_least, rounds::medians_of};
use lane::{Lane, Way};
use load::Scheme;

/// Requests per s, 50th and 99th percentile in ms, and the proxy's µs for each.
type Measured = [f64; 4];

/// Measures requests.
pub fn run(effort: &Effort) -> Result<Vec<Table>> {
    let ways = [Way::Direct, Way::Ours, Way::Nginx, Way::HaProxy];
    let lanes = ways.into_iter().map(Lane::build).collect::<Result<Vec<_>>>()?;
    [Scheme::Http, Scheme::Https]
        .into_iter()
        .map(|scheme| measure(effort, &lanes, scheme))
        .collect()
}

fn measure(effort: &Effort, lanes: &[Lane], scheme: Scheme) -> Result<Table> {
    let time = Duration::from_secs_f64(effort.seconds);
    // The service itself speaks no TLS.
    let mut lanes: Vec<&Lane> =
        lanes.iter().filter(|lane| scheme == Scheme::Http || lane.way != Way::Direct).collect();
    let results = medians_of(effort.rounds, &mut lanes, |lane| flood(lane, scheme, time))?;
    Ok(table(scheme, &lanes, &results))
}

fn flood(lane: &Lane, scheme: Scheme, time: Duration) -> Result<Measured> {
    let pids = lane.pids();
    let before = Usage::now(&pids)?;
    let load = load::run(lane, scheme, time)?;
    let spent = before.spent(&Usage::now(&pids)?);
    Ok([load.rate, load.p50, load.p99, spent.proxy * 1e6 / load.requests])
}

fn table(scheme: Scheme, lanes: &[&Lane], results: &[Measured]) -> Table {
    let title = match scheme {
        Scheme::Http => "Gateway, HTTP",
        Scheme::Https => "Gateway, HTTPS",
    };
    let columns = [
        "requests, 32 connections (of nginx)",
        "per s",
        "p50, ms",
        "p99, ms",
        "the proxy, CPU µs each",
        "target",
    ];
    let mut table = Table::new(title, &columns);
    let of = |way: Way| lanes.iter().zip(results).find(|(lane, _)| lane.way == way);
    let nginx = of(Way::Nginx).map_or(f64::NAN, |(_, result)| result[0]);
    for (lane, &[rate, p50, p99, each]) in lanes.iter().zip(results) {
        let (is_ours, is_proxy) = (lane.way == Way::Ours, lane.way != Way::Direct);
        table.row([
            lane.way.name().to_owned(),
            format!("{rate:.0} ({:.2})", rate / nginx),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            if is_proxy { format!("{each:.0}") } else { String::new() },
            if is_ours { at_least(rate / nginx, 0.8, " of nginx") } else { String::new() },
        ]);
    }
    table
}
