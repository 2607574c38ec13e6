//! Measures an agent with many sandboxes: attaching all, changing one, taking over after a kill,
//! and detaching all. Each client opens a connection per request, as the command line does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::{
    BenchProfile, ResultTable, prefix_lists::PrefixLists, result_table::at_most_target,
    rounds::quantile,
};
use policy_testbed::{
    agent::AgentProcess,
    network::{NetworkNamespace, command},
};

/// Changes per policy size: small ones are quick, and their 99th percentile is of interest.
const CHANGES: [usize; 3] = [300, 100, 10];
/// Targets in ms by policy size: the 50th percentile, and the 99th.
const CHANGE_TARGETS_MS: [(f64, Option<f64>); 3] =
    [(1.0, Some(5.0)), (1.0, Some(5.0)), (40.0, None)];
/// Pause between two looks at another namespace's `ip link`.
const LINK_PAUSE: Duration = Duration::from_millis(5);
/// The time for which it is measured while nothing else happens.
const QUIET_TIME: Duration = Duration::from_millis(500);

/// Measures an agent with many sandboxes.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let count = effort.interfaces;
    let host = NetworkNamespace::create("many")?;
    let pairs = (0..count.div_ceil(2))
        .map(|pair| format!("link add many{pair}a type veth peer name many{pair}b\n"));
    host.ip_batch(&pairs.collect::<String>())?;
    let mut agent = AgentProcess::configure("")?;
    agent.start(&host)?;
    let quiet = LinkTimer::start()?;
    thread::sleep(QUIET_TIME);
    let quiet = quiet.stop()?;
    let specs: Vec<Value> = (0..count).map(sandbox_spec).collect();
    let busy = LinkTimer::start()?;
    let attach = seconds(|| run_cli(&agent, &["apply", "-f", "-"], &json!(specs).to_string()))?;
    let busy = busy.stop()?;
    let changes = effort.policy_sizes.into_iter().zip(CHANGES).map(|(size, number)| {
        measure_changes(&agent, size, if effort.rounds > 1 { number } else { 3 })
    });
    let changes = changes.collect::<Result<Vec<_>>>()?;
    agent.kill()?;
    let adopt = seconds(|| agent.start(&host))?;
    let ids: Vec<String> = (0..count).map(sandbox_id).collect();
    let mut delete = vec!["delete"];
    delete.extend(ids.iter().map(String::as_str));
    let detach = seconds(|| run_cli(&agent, &delete, ""))?;
    let rows =
        [("attach", attach, 3.0), ("start after a kill", adopt, 1.0), ("detach", detach, 3.0)];
    Ok(vec![
        fleet_table(count, &rows, &quiet, &busy),
        changes_table(count, &effort.policy_sizes, changes),
    ])
}

fn fleet_table(
    count: usize,
    rows: &[(&str, f64, f64)],
    quiet: &[f64],
    busy: &[f64],
) -> ResultTable {
    let columns = [&format!("{count} sandboxes"), "", "target"];
    let mut table = ResultTable::new("Many sandboxes", &columns.map(|column| column as &str));
    for (what, taken, limit) in rows {
        let taken = taken * 1_000.0 / count as f64;
        table.add_row([
            (*what).to_owned(),
            format!("{taken:.2} ms each"),
            at_most_target(taken, *limit, "ms each"),
        ]);
    }
    let (quiet, busy) = (quantile(quiet, 0.5), quantile(busy, 0.5));
    table.add_row([
        "another namespace's ip link meanwhile".to_owned(),
        format!("{busy:.1} ms ({:.2} of quiet)", busy / quiet),
        at_most_target(busy / quiet, 2.0, "× quiet"),
    ]);
    table
}

fn changes_table(count: usize, sizes: &[usize], changes: Vec<Vec<f64>>) -> ResultTable {
    let columns = ["PUT until enforced, ms", "p50", "p99", "target"];
    let mut table = ResultTable::new(&format!("One change among {count} sandboxes"), &columns);
    for ((size, taken), (half, most)) in sizes.iter().zip(changes).zip(CHANGE_TARGETS_MS) {
        let (p50, p99) = (quantile(&taken, 0.5), quantile(&taken, 0.99));
        let mut target = at_most_target(p50, half, "ms p50");
        if let Some(most) = most {
            target += &format!("; {}", at_most_target(p99, most, "ms p99"));
        }
        table.add_row([
            format!("{size} entries, half of them IPv6"),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            target,
        ]);
    }
    table
}

/// The times of changes in ms.
fn measure_changes(agent: &AgentProcess, size: usize, number: usize) -> Result<Vec<f64>> {
    let path = format!("/sandboxes/{}/network", sandbox_id(0));
    let change = |seed: usize| {
        let lists = PrefixLists::new(size / 2, size - size / 2, seed as u64);
        let body = serde_json::to_string(&lists.network_config(&[]))?;
        let begin = Instant::now();
        let answer = agent.request("PUT", &path, &body)?;
        let taken = begin.elapsed().as_secs_f64() * 1e3;
        ensure!(answer.status == 204, "PUT {path}: {} {}", answer.status, answer.body);
        Ok(taken)
    };
    (0..number).map(change).collect()
}

fn run_cli(agent: &AgentProcess, arguments: &[&str], stdin: &str) -> Result<()> {
    let output = agent.cli_with_stdin(arguments, stdin)?;
    ensure!(output.exit_code == 0, "policy-agent {}: {}", arguments[0], output.stderr);
    Ok(())
}

fn seconds(action: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    action()?;
    Ok(begin.elapsed().as_secs_f64())
}

fn sandbox_id(number: usize) -> String {
    format!("many{number}")
}

/// Each veth pair serves two sandboxes.
fn sandbox_spec(number: usize) -> Value {
    let side = if number.is_multiple_of(2) { "a" } else { "b" };
    let [high, low] = [number / 256, number % 256];
    json!({
        "sandboxID": sandbox_id(number),
        "interface": format!("many{}{side}", number / 2),
        "addresses": [format!("10.12.{high}.{low}"), format!("fd00:12::{number:x}")],
        "mac": format!("02:fc:01:00:{high:02x}:{low:02x}"),
        "network": { "denyOut": ["0.0.0.0/0"], "allowOut": [format!("203.0.113.{}", low % 10)] },
    })
}

/// Times `ip link` in a namespace that has nothing to do with the sandboxes.
struct LinkTimer {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<f64>>>,
}

impl LinkTimer {
    fn start() -> Result<Self> {
        let other = NetworkNamespace::create("quiet")?;
        let stopping = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stopping);
        let measure = move || {
            let mut taken = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let mut ip = other.command("ip")?;
                let begin = Instant::now();
                command::run(ip.args(["link", "set", "lo", "up"]))?;
                taken.push(begin.elapsed().as_secs_f64() * 1e3);
                thread::sleep(LINK_PAUSE);
            }
            Ok(taken)
        };
        let thread = thread::Builder::new().name("link-timer".to_owned()).spawn(measure);
        Ok(Self { stopping, thread: thread.context("starting a thread")? })
    }

    fn stop(self) -> Result<Vec<f64>> {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("timing `ip link` panicked"))?
    }
}
