//! Measures HTTP requests on keep-alive connections.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::{
    super::{BenchProfile, ResultTable, rounds::medians_of_each},
    load_client::{self, in_sandbox, join_all, with_timeout},
    proxy_setup::ProxySetup,
    resource_usage::CpuUsage,
    wire_protocol::{SERVER_NAME, server_address},
};

/// The number of connections. Each has one request at a time.
const CONNECTIONS: usize = 32;

/// A keep-alive connection to the server.
pub(crate) type KeepAliveConnection = SendRequest<Empty<Bytes>>;

/// Measures requests.
pub(crate) fn run(effort: &BenchProfile, lanes: &mut [ProxySetup]) -> Result<ResultTable> {
    let time = Duration::from_secs_f64(effort.seconds);
    let results = medians_of_each(effort.rounds, lanes, |lane| {
        let pids = lane.relay_pids();
        let before = CpuUsage::now(&pids)?;
        let flood = measure_requests(lane, time)?;
        let spent = before.spent_until(&CpuUsage::now(&pids)?);
        let each = spent.proxy * 1e6 / flood.count() as f64;
        Ok([flood.rate(), flood.percentile(50), flood.percentile(99), each])
    })?;
    let columns = [
        "requests, 32 connections (of direct)",
        "per s",
        "p50, ms",
        "p99, ms",
        "the proxy, CPU µs each",
    ];
    let mut table = ResultTable::new("Proxied HTTP", &columns);
    for (lane, &[rate, p50, p99, each]) in lanes.iter().zip(&results) {
        table.add_row([
            lane.variant.name().to_owned(),
            format!("{rate:.0} ({:.2})", rate / results[0][0]),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            lane.cell_unless_direct(format!("{each:.0}")),
        ]);
    }
    Ok(table)
}

/// Measures sequential requests on each connection.
fn measure_requests(lane: &ProxySetup, time: Duration) -> Result<load_client::LatencySample> {
    in_sandbox(lane, async {
        let end = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            tasks.spawn(async move {
                let (mut kept, mut taken) = (connect_http().await?, Vec::new());
                while Instant::now() < end {
                    let begin = Instant::now();
                    send_request(&mut kept).await?;
                    taken.push(begin.elapsed().as_secs_f64() * 1e3);
                }
                Ok(taken)
            });
        }
        join_all(tasks).await
    })
}

/// Opens a connection and completes one request on it.
pub(crate) async fn open_keep_alive() -> Result<KeepAliveConnection> {
    let mut kept = connect_http().await?;
    send_request(&mut kept).await?;
    Ok(kept)
}

async fn connect_http() -> Result<KeepAliveConnection> {
    let stream = with_timeout(async { Ok(TcpStream::connect(server_address(80)).await?) }).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Errors of the connection also appear as errors of its requests.
    tokio::spawn(connection);
    Ok(sender)
}

async fn send_request(kept: &mut KeepAliveConnection) -> Result<()> {
    with_timeout(async {
        kept.ready().await?;
        let request = Request::get("/").header(HOST, SERVER_NAME).body(Empty::new())?;
        let answer = kept.send_request(request).await?;
        ensure!(answer.status().is_success(), "answered with {}", answer.status());
        answer.into_body().collect().await?;
        Ok(())
    })
    .await
}
