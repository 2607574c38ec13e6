//! Bulk transfers: one connection that carries as much as it can, in either direction.

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
        Effort, Table,
        report::{at_least, at_most},
        rounds::medians_of,
    },
    hello::{self, DOWNLOAD, UPLOAD},
    lane::{Lane, Way},
    server::CHUNK,
    usage::{self, Usage},
};
use crate::patience::eventually;

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Download,
    Upload,
}

/// Measures both directions.
pub fn run(effort: &Effort, lanes: &mut [Lane]) -> Result<Vec<Table>> {
    let time = Duration::from_secs_f64(effort.seconds);
    [Direction::Download, Direction::Upload]
        .into_iter()
        .map(|direction| {
            let results = medians_of(effort.rounds, lanes, |lane| transfer(lane, direction, time))?;
            Ok(table(direction, lanes, &results))
        })
        .collect()
}

/// Processors that may be busy with other things for the machine's usage to mean something.
const BUSY: f64 = 0.1;

/// Gbit/s, and processor seconds per GB: of the machine, of client, server and proxy, and of the
/// proxy. The machine's are not known while it is busy with other things.
type Measured = [f64; 4];

fn transfer(lane: &Lane, direction: Direction, time: Duration) -> Result<Measured> {
    let idle = usage::idle(time / 4)?;
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| client(lane, direction, &stop, &received));
        let before = lane.server.received();
        let arrived = || match direction {
            Direction::Download => received.load(Ordering::Relaxed),
            Direction::Upload => lane.server.received() - before,
        };
        let measured = watch(lane, time, idle, arrived);
        stop.store(true, Ordering::Relaxed);
        client.join().map_err(|_| anyhow!("the client panicked"))??;
        measured
    })
}

/// Looks at a transfer for some time, once it has gathered way.
fn watch(lane: &Lane, time: Duration, idle: f64, arrived: impl Fn() -> u64) -> Result<Measured> {
    eventually("the first bytes arrive", || (arrived() > 0).then_some(()))?;
    thread::sleep(time / 4);
    let pids = lane.pids();
    let (before, begin) = (arrived(), Usage::now(&pids)?);
    thread::sleep(time);
    let (bytes, spent) = (arrived() - before, begin.spent(&Usage::now(&pids)?));
    let gigabytes = bytes as f64 / 1e9;
    let machine = if idle < BUSY { spent.machine - idle * spent.time } else { f64::NAN };
    let each = [machine, spent.all, spent.proxy].map(|seconds| seconds / gigabytes);
    Ok([gigabytes * 8.0 / spent.time, each[0], each[1], each[2]])
}

/// The sandbox's end, until it is told to stop.
fn client(
    lane: &Lane,
    direction: Direction,
    stop: &AtomicBool,
    received: &AtomicU64,
) -> Result<()> {
    let mut stream = hello::connect(&lane.sandbox.inside, &lane.hello)?;
    match direction {
        Direction::Download => download(&mut stream, stop, received)?,
        Direction::Upload => upload(&mut stream, stop)?,
    }
    Ok(())
}

fn download(stream: &mut TcpStream, stop: &AtomicBool, received: &AtomicU64) -> io::Result<()> {
    stream.write_all(&[DOWNLOAD])?;
    let mut chunk = vec![0; CHUNK];
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
    stream.write_all(&[UPLOAD])?;
    let chunk = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn table(direction: Direction, lanes: &[Lane], results: &[Measured]) -> Table {
    let title = match direction {
        Direction::Download => "Proxied download",
        Direction::Upload => "Proxied upload",
    };
    let columns = [
        "one connection (of direct)",
        "Gbit/s",
        "CPU s per GB: machine",
        "all processes",
        "the proxy",
        "target",
    ];
    let mut table = Table::new(title, &columns);
    let direct = results[0];
    let cost = |value: f64, direct: f64| match value / direct {
        ratio if ratio.is_nan() => "(busy)".to_owned(),
        ratio => format!("{value:.2} ({ratio:.2})"),
    };
    for (lane, &[rate, machine, all, proxy]) in lanes.iter().zip(results) {
        let target = match lane.way {
            Way::Ours => {
                let rate = at_least(rate / direct[0], 0.8, "");
                format!("{rate}; {}", at_most(all / direct[2], 1.5, "× CPU"))
            }
            _ => String::new(),
        };
        table.row([
            lane.way.name().to_owned(),
            format!("{rate:.1} ({:.2})", rate / direct[0]),
            cost(machine, direct[1]),
            cost(all, direct[2]),
            lane.of_proxy(format!("{proxy:.2}")),
            target,
        ]);
    }
    table
}
