//! One TCP connection that sends as much as it can from a sandbox to the internet.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use policy_agent::dataplane::{DenyAction, Inbound};

use super::{
    Effort, Table,
    lists::Lists,
    report::at_least,
    rounds::medians,
    topology::{Guard, Road},
};
use crate::{kernel, world::Bpffs};

/// One of the internet's addresses.
const SERVER: [u8; 4] = [203, 0, 113, 10];
const CHUNK: usize = 256 * 1024;

/// Measures bulk TCP.
pub fn run(effort: &Effort) -> Result<Vec<Table>> {
    let bpffs = Bpffs::find()?;
    let dataplane = kernel::open(&bpffs, DenyAction::Drop, Inbound::Any)?;
    let server = IpAddr::from(SERVER);
    let (small, large) = (Lists::new(effort.sizes[1], 0, 7), Lists::new(effort.sizes[2], 0, 7));
    let mut roads = Vec::new();
    for (guard, lists) in [
        (Guard::None, &small),
        (Guard::Nftables, &small),
        (Guard::Ours, &small),
        (Guard::Ours, &large),
    ] {
        roads.push(Road::build(guard, &dataplane, lists, &[server.into()])?);
    }
    let time = Duration::from_secs_f64(effort.seconds);
    let rates = medians(effort.rounds, &mut roads, |road| gigabits(road, server, time))?;
    let mut table = Table::new("Bulk TCP", &["one connection (of no policy)", "Gbit/s", "target"]);
    for (road, &rate) in roads.iter().zip(&rates) {
        let ratio = rate / rates[0];
        let ours = road.guard == Guard::Ours;
        let target = if ours { at_least(ratio, 0.98, "") } else { String::new() };
        table.row([road.name.clone(), format!("{rate:.1} ({ratio:.2})"), target]);
    }
    Ok(vec![table])
}

/// Gbit/s that arrive.
fn gigabits(road: &Road, server: IpAddr, time: Duration) -> Result<f64> {
    let listener = {
        let _inside = road.world.internet.enter()?;
        TcpListener::bind((server, 0)).context("listening in the internet")?
    };
    let address = listener.local_addr()?;
    let receiver = thread::spawn(move || received(&listener));
    {
        let _inside = road.sandbox.inside.enter()?;
        send(address, time)?;
    }
    let (bytes, taken) = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
    Ok(bytes as f64 * 8.0 / taken.as_secs_f64() / 1e9)
}

fn send(to: SocketAddr, time: Duration) -> Result<()> {
    let mut stream = TcpStream::connect(to).context("connecting from the sandbox")?;
    let (chunk, begin) = (vec![0; CHUNK], Instant::now());
    while begin.elapsed() < time {
        stream.write_all(&chunk).context("sending from the sandbox")?;
    }
    Ok(())
}

/// How many bytes one connection brings, and in what time.
fn received(listener: &TcpListener) -> Result<(u64, Duration)> {
    let (mut stream, _) = listener.accept()?;
    let (mut chunk, begin, mut bytes) = (vec![0; CHUNK], Instant::now(), 0);
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok((bytes, begin.elapsed())),
            read => bytes += read as u64,
        }
    }
}
