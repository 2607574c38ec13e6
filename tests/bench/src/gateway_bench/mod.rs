//! Measures requests through the gateway, compared with nginx and HAProxy as reverse proxies. All
//! have the same service in a sandbox and the same load. All keep connections to the service alive
//! and log every request.

mod gateway_setup;
mod reverse_proxies;

use std::time::Duration;

use anyhow::Result;

use super::{
    BenchProfile, ResultTable,
    rounds::medians_of_each,
    wrk::{self, RequestStats},
};
use gateway_setup::{GatewaySetup, GatewayVariant, UrlScheme};

/// Measures requests.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let ways = [
        GatewayVariant::Direct,
        GatewayVariant::Agent,
        GatewayVariant::Nginx,
        GatewayVariant::HaProxy,
    ];
    let lanes = ways.into_iter().map(GatewaySetup::build).collect::<Result<Vec<_>>>()?;
    [UrlScheme::Http, UrlScheme::Https]
        .into_iter()
        .map(|scheme| measure(effort, &lanes, scheme))
        .collect()
}

fn measure(
    effort: &BenchProfile,
    lanes: &[GatewaySetup],
    scheme: UrlScheme,
) -> Result<ResultTable> {
    let time = Duration::from_secs_f64(effort.seconds);
    // The service itself has no TLS.
    let mut lanes: Vec<&GatewaySetup> = lanes
        .iter()
        .filter(|lane| scheme == UrlScheme::Http || lane.variant != GatewayVariant::Direct)
        .collect();
    let results = medians_of_each(effort.rounds, &mut lanes, |lane| {
        wrk::measure_requests(lane.wrk_command()?, &lane.url(scheme), time, &lane.relay_pids())
    })?;
    Ok(table(scheme, &lanes, &results))
}

fn table(scheme: UrlScheme, lanes: &[&GatewaySetup], results: &[RequestStats]) -> ResultTable {
    let title = match scheme {
        UrlScheme::Http => "Gateway, HTTP",
        UrlScheme::Https => "Gateway, HTTPS",
    };
    let columns = [
        "requests, 32 connections (of nginx)",
        "per s",
        "p50, ms",
        "p99, ms",
        "the proxy, CPU µs each",
    ];
    let mut table = ResultTable::new(title, &columns);
    let of = |way: GatewayVariant| lanes.iter().zip(results).find(|(lane, _)| lane.variant == way);
    let nginx = of(GatewayVariant::Nginx).map_or(f64::NAN, |(_, result)| result[0]);
    for (lane, &[rate, p50, p99, each]) in lanes.iter().zip(results) {
        table.add_row([
            lane.variant.name().to_owned(),
            format!("{rate:.0} ({:.2})", rate / nginx),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            if lane.variant == GatewayVariant::Direct {
                String::new()
            } else {
                format!("{each:.0}")
            },
        ]);
    }
    table
}
