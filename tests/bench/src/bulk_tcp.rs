//! Measures one TCP connection that sends at full rate from a sandbox to the internet.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use policy_agent::dataplane::DenyAction;

use super::{
    BenchProfile, ResultTable,
    prefix_lists::PrefixLists,
    result_table::at_least_target,
    rounds::medians,
    traffic_path::{PathFilter, TrafficPath},
};
use crate::dataplane::open_dataplane;
use policy_testbed::network::BpffsDirectory;

/// One of the internet's addresses.
const SERVER: [u8; 4] = [203, 0, 113, 10];
const CHUNK_BYTES: usize = 256 * 1024;

/// Measures bulk TCP.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let bpffs = BpffsDirectory::create()?;
    let dataplane = open_dataplane(&bpffs, DenyAction::Drop)?;
    let server = IpAddr::from(SERVER);
    let (small, large) = (
        PrefixLists::new(effort.policy_sizes[1], 0, 7),
        PrefixLists::new(effort.policy_sizes[2], 0, 7),
    );
    let mut roads = Vec::new();
    for (guard, lists) in [
        (PathFilter::None, &small),
        (PathFilter::Nftables, &small),
        (PathFilter::Agent, &small),
        (PathFilter::Agent, &large),
    ] {
        roads.push(TrafficPath::build(guard, &dataplane, lists, &[server.into()])?);
    }
    let time = Duration::from_secs_f64(effort.seconds);
    let rates = medians(effort.rounds, &mut roads, |road| measure_gigabits(road, server, time))?;
    let mut table =
        ResultTable::new("Bulk TCP", &["one connection (of no policy)", "Gbit/s", "target"]);
    for (road, &rate) in roads.iter().zip(&rates) {
        let ratio = rate / rates[0];
        let ours = road.filter == PathFilter::Agent;
        let target = if ours { at_least_target(ratio, 0.98, "") } else { String::new() };
        table.add_row([road.name.clone(), format!("{rate:.1} ({ratio:.2})"), target]);
    }
    Ok(vec![table])
}

/// Returns the received Gbit/s.
fn measure_gigabits(road: &TrafficPath, server: IpAddr, time: Duration) -> Result<f64> {
    let listener = {
        let _inside = road.network.internet.enter()?;
        TcpListener::bind((server, 0)).context("listening in the internet")?
    };
    let address = listener.local_addr()?;
    let receiver = thread::spawn(move || receive_all(&listener));
    {
        let _inside = road.sandbox.namespace.enter()?;
        send_for(address, time)?;
    }
    let (bytes, taken) = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
    Ok(bytes as f64 * 8.0 / taken.as_secs_f64() / 1e9)
}

fn send_for(to: SocketAddr, time: Duration) -> Result<()> {
    let mut stream = TcpStream::connect(to).context("connecting from the sandbox")?;
    let (chunk, begin) = (vec![0; CHUNK_BYTES], Instant::now());
    while begin.elapsed() < time {
        stream.write_all(&chunk).context("sending from the sandbox")?;
    }
    Ok(())
}

/// Returns the bytes that one connection delivers, and the time.
fn receive_all(listener: &TcpListener) -> Result<(u64, Duration)> {
    let (mut stream, _) = listener.accept()?;
    let (mut chunk, begin, mut bytes) = (vec![0; CHUNK_BYTES], Instant::now(), 0);
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok((bytes, begin.elapsed())),
            read => bytes += read as u64,
        }
    }
}
