//! Measures what it costs to watch many sandboxes, as `top` and the page do, and to record what they are
//! denied: all of them send to forbidden destinations as fast as one thread can.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    BenchProfile, ResultTable,
    frame_sender::FrameSender,
    proxy_bench::resource_usage::{CpuUsage, MemoryUsage},
    result_table::at_least_target,
    rounds::median,
};
use policy_testbed::{
    agent::AgentProcess,
    network::NetworkNamespace,
    packets::{IpDatagram, IpPayload, MacAddr},
};

/// Destinations that each sandbox is denied.
const DESTINATIONS: usize = 4;
/// What views ask for, once a second.
const TRAFFIC_PATH: &str = "/agent/v1/traffic";
/// The part of the packet rate that remains at least while the agent records.
const RATE_TARGET: f64 = 0.9;

/// Measures an agent with many sandboxes.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let count = effort.interfaces;
    let host = NetworkNamespace::create("watched")?;
    host.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    let pair = |number: usize| {
        let (outer, inner) = interface_names(number);
        format!(
            "link add {outer} type veth peer name {inner}\nlink set {outer} up\nlink set {inner} up\n"
        )
    };
    host.ip_batch(&(0..count).map(pair).collect::<String>())?;
    let mut agent = AgentProcess::configure("")?;
    agent.start(&host)?;
    let specs: Vec<Value> = (0..count).map(sandbox_spec).collect();
    let applied = agent.cli_with_stdin(&["apply", "-f", "-"], &json!(specs).to_string())?;
    ensure!(applied.exit_code == 0, "policy-agent apply: {}", applied.stderr);
    let watched = watch_traffic(&agent, effort)?;
    let inner: Vec<String> = (0..count).map(|number| interface_names(number).1).collect();
    let sender = FrameSender::open_all(&host, &inner)?;
    let flood = measure_flood(&mut agent, &sender, &denied_frames(count), effort)?;
    Ok(vec![watch_table(count, watched), flood_table(count, &flood)])
}

/// The ms until a view's request is answered, the agent's CPU ms for it, and the length in KiB.
fn watch_traffic(agent: &AgentProcess, effort: &BenchProfile) -> Result<[f64; 3]> {
    let pids: Vec<u32> = agent.pid().into_iter().collect();
    let requests = if effort.rounds > 1 { 50 } else { 3 };
    let (before, mut taken, mut length) = (CpuUsage::now(&pids)?, Vec::new(), 0);
    for _ in 0..requests {
        let begin = Instant::now();
        let answer = agent.request("GET", TRAFFIC_PATH, "")?;
        taken.push(begin.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.status == 200, "GET {TRAFFIC_PATH}: {}", answer.body);
        length = answer.body.len();
    }
    let spent = before.spent_until(&CpuUsage::now(&pids)?);
    Ok([median(taken), spent.proxy * 1e3 / f64::from(requests), length as f64 / 1024.0])
}

/// Denied packets from all sandboxes.
struct DenialFlood {
    /// Thousand packets per second while the agent records.
    recorded: f64,
    /// The same while no agent runs. The kernel goes on denying.
    unrecorded: f64,
    /// The busy cores of the agent.
    cores: f64,
    /// The agent's memory in MiB, before and after.
    memory: [f64; 2],
}

fn measure_flood(
    agent: &mut AgentProcess,
    sender: &FrameSender,
    frames: &[Vec<u8>],
    effort: &BenchProfile,
) -> Result<DenialFlood> {
    let time = Duration::from_secs_f64(effort.seconds);
    let pids: Vec<u32> = agent.pid().into_iter().collect();
    let kpps = || -> Result<f64> {
        let (sent, taken) = sender.send_for(frames, time)?;
        Ok(sent as f64 / taken.as_secs_f64() / 1e3)
    };
    let rates = || (0..effort.rounds).map(|_| kpps()).collect::<Result<Vec<_>>>();
    let memory = MemoryUsage::now(&pids)?.processes;
    let before = CpuUsage::now(&pids)?;
    let recorded = median(rates()?);
    let spent = before.spent_until(&CpuUsage::now(&pids)?);
    // What is still in the ring.
    thread::sleep(time);
    let memory = [memory, MemoryUsage::now(&pids)?.processes];
    agent.kill().context("killing the agent")?;
    Ok(DenialFlood {
        recorded,
        unrecorded: median(rates()?),
        cores: spent.proxy / spent.elapsed,
        memory,
    })
}

fn watch_table(count: usize, [taken, cpu, length]: [f64; 3]) -> ResultTable {
    let columns = ["a view's request, once a second", "ms", "the agent, CPU ms", "KiB"];
    let mut table = ResultTable::new(&format!("Watching {count} sandboxes"), &columns);
    let cells = [format!("{taken:.1}"), format!("{cpu:.1}"), format!("{length:.0}")];
    table.add_row([TRAFFIC_PATH.to_owned()].into_iter().chain(cells));
    table
}

fn flood_table(count: usize, flood: &DenialFlood) -> ResultTable {
    let columns = ["denied packets", "kpps", "the agent, cores", "MiB before", "after", "target"];
    let mut table = ResultTable::new(&format!("Denials of {count} sandboxes"), &columns);
    let ratio = flood.recorded / flood.unrecorded;
    let [before, after] = flood.memory.map(|value| format!("{value:.1}"));
    table.add_row([
        "recorded by the agent".to_owned(),
        format!("{:.0} ({ratio:.2})", flood.recorded),
        format!("{:.2}", flood.cores),
        before,
        after,
        at_least_target(ratio, RATE_TARGET, "× without"),
    ]);
    table.add_row(["without an agent".to_owned(), format!("{:.0} (1.00)", flood.unrecorded)]);
    table
}

/// The names of both sides of a sandbox's interface: the host's, and the sandbox's.
fn interface_names(number: usize) -> (String, String) {
    (format!("watch{number}"), format!("inner{number}"))
}

fn addressing(number: usize) -> ([u8; 4], MacAddr) {
    let [high, low] = [number / 256, number % 256].map(|part| u8::try_from(part).unwrap_or(0));
    ([10, 13, high, low], [2, 0xfc, 2, 0, high, low])
}

fn sandbox_spec(number: usize) -> Value {
    let (address, mac) = addressing(number);
    let address = address.map(|part| part.to_string()).join(".");
    let mac = mac.map(|part| format!("{part:02x}")).join(":");
    json!({
        "sandboxID": format!("watched{number}"),
        "interface": interface_names(number).0,
        "addresses": [address],
        "mac": mac,
        "network": { "denyOut": ["0.0.0.0/0"] },
    })
}

/// Frames that are denied, those of all sandboxes in turns.
fn denied_frames(count: usize) -> Vec<Vec<u8>> {
    let frame = |index: usize| {
        let (source, mac) = addressing(index % count);
        let last = u8::try_from(index / count).unwrap_or(0);
        let payload = IpPayload::udp(4000, 4000, &[0; 18]);
        let datagram = IpDatagram::new(source, [203, 0, 113, last], payload);
        datagram.to_frame().with_source(mac).bytes().to_vec()
    };
    (0..count * DESTINATIONS).map(frame).collect()
}
