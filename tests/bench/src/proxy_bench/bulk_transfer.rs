//! Bulk transfers: one connection at full rate, in either direction.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};

use super::{
    super::{
        BenchProfile, ResultTable,
        result_table::{at_least_target, at_most_target},
        rounds::medians_of_each,
    },
    bench_server::CHUNK_BYTES,
    proxy_setup::{ProxySetup, ProxyVariant},
    resource_usage::{self, CpuUsage},
    wire_protocol::{self, DOWNLOAD_COMMAND, UPLOAD_COMMAND},
};
use policy_testbed::wait::eventually;

/// The direction of the data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TransferDirection {
    Download,
    Upload,
}

/// Measures both directions.
pub(crate) fn run(effort: &BenchProfile, lanes: &mut [ProxySetup]) -> Result<Vec<ResultTable>> {
    let time = Duration::from_secs_f64(effort.seconds);
    [TransferDirection::Download, TransferDirection::Upload]
        .into_iter()
        .map(|direction| {
            let results = medians_of_each(effort.rounds, lanes, |lane| {
                measure_transfer(lane, direction, time)
            })?;
            Ok(table(direction, lanes, &results))
        })
        .collect()
}

/// The number of busy CPUs up to which the machine's usage is meaningful.
const BUSY_PROCESSORS: f64 = 0.1;

/// Gbit/s, and CPU seconds per GB of three groups: the whole machine; client, server and proxy; the
/// proxy alone. The machine's value is NaN while other work keeps it busy.
type TransferStats = [f64; 4];

fn measure_transfer(
    lane: &ProxySetup,
    direction: TransferDirection,
    time: Duration,
) -> Result<TransferStats> {
    let idle = resource_usage::busy_processors(time / 4)?;
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| run_client(lane, direction, &stop, &received));
        let before = lane.server.received_bytes();
        let arrived = || match direction {
            TransferDirection::Download => received.load(Ordering::Relaxed),
            TransferDirection::Upload => lane.server.received_bytes() - before,
        };
        let measured = measure_steady_state(lane, time, idle, arrived);
        stop.store(true, Ordering::Relaxed);
        client.join().map_err(|_| anyhow!("the client panicked"))??;
        measured
    })
}

/// Measures a transfer for some time after it has reached a steady rate.
fn measure_steady_state(
    lane: &ProxySetup,
    time: Duration,
    idle: f64,
    arrived: impl Fn() -> u64,
) -> Result<TransferStats> {
    eventually("the first bytes arrive", || (arrived() > 0).then_some(()))?;
    thread::sleep(time / 4);
    let pids = lane.relay_pids();
    let (before, begin) = (arrived(), CpuUsage::now(&pids)?);
    thread::sleep(time);
    let (bytes, spent) = (arrived() - before, begin.spent_until(&CpuUsage::now(&pids)?));
    let gigabytes = bytes as f64 / 1e9;
    let machine =
        if idle < BUSY_PROCESSORS { spent.machine - idle * spent.elapsed } else { f64::NAN };
    let each = [machine, spent.client_server_proxy, spent.proxy].map(|seconds| seconds / gigabytes);
    Ok([gigabytes * 8.0 / spent.elapsed, each[0], each[1], each[2]])
}

/// Runs the client in the sandbox until `stop` is set.
fn run_client(
    lane: &ProxySetup,
    direction: TransferDirection,
    stop: &AtomicBool,
    received: &AtomicU64,
) -> Result<()> {
    let mut stream = wire_protocol::connect_from(&lane.sandbox.namespace, &lane.hello)?;
    match direction {
        TransferDirection::Download => download(&mut stream, stop, received)?,
        TransferDirection::Upload => upload(&mut stream, stop)?,
    }
    Ok(())
}

fn download(stream: &mut TcpStream, stop: &AtomicBool, received: &AtomicU64) -> io::Result<()> {
    stream.write_all(&[DOWNLOAD_COMMAND])?;
    let mut chunk = vec![0; CHUNK_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn upload(stream: &mut TcpStream, stop: &AtomicBool) -> io::Result<()> {
    stream.write_all(&[UPLOAD_COMMAND])?;
    let chunk = vec![0; CHUNK_BYTES];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn table(
    direction: TransferDirection,
    lanes: &[ProxySetup],
    results: &[TransferStats],
) -> ResultTable {
    let title = match direction {
        TransferDirection::Download => "Proxied download",
        TransferDirection::Upload => "Proxied upload",
    };
    let columns = [
        "one connection (of direct)",
        "Gbit/s",
        "CPU s per GB: machine",
        "all processes",
        "the proxy",
        "target",
    ];
    let mut table = ResultTable::new(title, &columns);
    let direct = results[0];
    let cost = |value: f64, direct: f64| match value / direct {
        ratio if ratio.is_nan() => "(busy)".to_owned(),
        ratio => format!("{value:.2} ({ratio:.2})"),
    };
    for (lane, &[rate, machine, all, proxy]) in lanes.iter().zip(results) {
        let target = match lane.variant {
            ProxyVariant::Agent => {
                let rate = at_least_target(rate / direct[0], 0.8, "");
                format!("{rate}; {}", at_most_target(all / direct[2], 1.5, "× CPU"))
            }
            _ => String::new(),
        };
        table.add_row([
            lane.variant.name().to_owned(),
            format!("{rate:.1} ({:.2})", rate / direct[0]),
            cost(machine, direct[1]),
            cost(all, direct[2]),
            lane.cell_unless_direct(format!("{proxy:.2}")),
            target,
        ]);
    }
    table
}
