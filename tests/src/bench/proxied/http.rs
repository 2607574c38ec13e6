//! HTTP requests on connections that are kept.

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
    super::{Effort, Table, rounds::medians_of},
    client::{self, all, in_sandbox, limited},
    hello::{NAME, server},
    lane::Lane,
    usage::Usage,
};

/// Connections, each with one request at a time.
const AT_ONCE: usize = 32;

/// A connection to the server, as long as it is kept.
pub type Kept = SendRequest<Empty<Bytes>>;

/// Measures requests.
pub fn run(effort: &Effort, lanes: &mut [Lane]) -> Result<Table> {
    let time = Duration::from_secs_f64(effort.seconds);
    let results = medians_of(effort.rounds, lanes, |lane| {
        let pids = lane.pids();
        let before = Usage::now(&pids)?;
        let flood = flood(lane, time)?;
        let spent = before.spent(&Usage::now(&pids)?);
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
    let mut table = Table::new("Proxied HTTP", &columns);
    for (lane, &[rate, p50, p99, each]) in lanes.iter().zip(&results) {
        table.row([
            lane.way.name().to_owned(),
            format!("{rate:.0} ({:.2})", rate / results[0][0]),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            lane.of_proxy(format!("{each:.0}")),
        ]);
    }
    Ok(table)
}

/// Requests, one after the other on each connection.
fn flood(lane: &Lane, time: Duration) -> Result<client::Flood> {
    in_sandbox(lane, async {
        let end = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for _ in 0..AT_ONCE {
            tasks.spawn(async move {
                let (mut kept, mut taken) = (connected().await?, Vec::new());
                while Instant::now() < end {
                    let begin = Instant::now();
                    request(&mut kept).await?;
                    taken.push(begin.elapsed().as_secs_f64() * 1e3);
                }
                Ok(taken)
            });
        }
        all(tasks).await
    })
}

/// A connection on which one request has been answered.
pub async fn kept() -> Result<Kept> {
    let mut kept = connected().await?;
    request(&mut kept).await?;
    Ok(kept)
}

async fn connected() -> Result<Kept> {
    let stream = limited(async { Ok(TcpStream::connect(server(80)).await?) }).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors are those of the requests.
    tokio::spawn(connection);
    Ok(sender)
}

async fn request(kept: &mut Kept) -> Result<()> {
    limited(async {
        kept.ready().await?;
        let request = Request::get("/").header(HOST, NAME).body(Empty::new())?;
        let answer = kept.send_request(request).await?;
        ensure!(answer.status().is_success(), "answered with {}", answer.status());
        answer.into_body().collect().await?;
        Ok(())
    })
    .await
}
