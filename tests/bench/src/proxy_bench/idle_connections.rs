//! Measures the memory of idle connections.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use super::{
    super::{BenchProfile, ResultTable, result_table::at_most_target},
    http_load,
    load_client::{self, join_all},
    proxy_setup::{ProxySetup, ProxyVariant},
    resource_usage::MemoryUsage,
};

/// The number of connections being opened at the same time.
const CONNECTING_AT_ONCE: usize = 50;
/// The idle time before the memory is measured.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// The limit on the proxy's memory for 10 000 connections, in MiB.
const MEMORY_TARGET_MIB: f64 = 60.0;
/// Files that a process opens in addition to two per connection.
const OTHER_FILES: usize = 500;

/// The protocol of the connections.
#[derive(Clone, Copy)]
enum IdleProtocol {
    Tls,
    Http,
}

/// The memory of the connections of one setup, in MiB.
struct IdleMemory {
    name: String,
    variant: ProxyVariant,
    /// The proxy's memory without connections.
    proxy_before: f64,
    /// The proxy's memory with connections.
    proxy_after: f64,
    /// The growth of the machine's used memory.
    machine_growth: f64,
    /// The growth of the kernel's slab memory.
    slab_growth: f64,
}

/// Measures idle connections once per proxy, each with a newly started proxy. The limit of open
/// files per process, `files`, bounds their number.
pub(crate) fn run(effort: &BenchProfile, files: u64) -> Result<ResultTable> {
    // The agent keeps a tenth of its files for itself.
    let most = usize::try_from(files - files / 10)?.saturating_sub(OTHER_FILES) / 2;
    let count = effort.idle_connections.min(most) / CONNECTING_AT_ONCE * CONNECTING_AT_ONCE;
    let mut all = Vec::new();
    for (way, protocol) in [
        (ProxyVariant::Direct, IdleProtocol::Tls),
        (ProxyVariant::Agent, IdleProtocol::Tls),
        (ProxyVariant::Agent, IdleProtocol::Http),
        (ProxyVariant::HaProxy, IdleProtocol::Tls),
        (ProxyVariant::Nginx, IdleProtocol::Tls),
    ] {
        all.push(measure_idle_memory(&ProxySetup::build(way)?, protocol, count)?);
    }
    Ok(table(count, &all))
}

fn measure_idle_memory(
    lane: &ProxySetup,
    protocol: IdleProtocol,
    count: usize,
) -> Result<IdleMemory> {
    let _inside = lane.sandbox.namespace.enter()?;
    let runtime = load_client::current_thread_runtime()?;
    let pids = lane.relay_pids();
    let before = MemoryUsage::now(&pids)?;
    let hello = Arc::clone(&lane.hello);
    let look = || {
        thread::sleep(SETTLE_TIME);
        MemoryUsage::now(&pids)
    };
    let after = match protocol {
        IdleProtocol::Tls => {
            let open = move || {
                let hello = Arc::clone(&hello);
                async move { load_client::connect_and_greet(&hello).await }
            };
            let _held =
                runtime.block_on(open_connections(count, open)).context(lane.variant.name())?;
            let after = look()?;
            let open = lane.server.open_connections();
            ensure!(open >= count, "{}: {open} connections are left", lane.variant.name());
            after
        }
        IdleProtocol::Http => {
            let _held = runtime
                .block_on(open_connections(count, http_load::open_keep_alive))
                .context(lane.variant.name())?;
            look()?
        }
    };
    let name = match protocol {
        IdleProtocol::Tls => lane.variant.name().to_owned(),
        IdleProtocol::Http => format!("{}, HTTP keep-alive", lane.variant.name()),
    };
    Ok(IdleMemory {
        name,
        variant: lane.variant,
        proxy_before: before.processes,
        proxy_after: after.processes,
        machine_growth: after.machine - before.machine,
        slab_growth: after.slab - before.slab,
    })
}

/// Opens this number of connections.
async fn open_connections<T, F>(
    count: usize,
    open: impl Fn() -> F + Clone + Send + 'static,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send,
{
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTING_AT_ONCE {
        let open = open.clone();
        tasks.spawn(async move {
            let mut held = Vec::new();
            for _ in 0..count / CONNECTING_AT_ONCE {
                held.push(open().await?);
            }
            Ok(held)
        });
    }
    join_all(tasks).await
}

fn table(count: usize, all: &[IdleMemory]) -> ResultTable {
    let columns = [
        "MiB (more than direct)",
        "the proxy, before",
        "the proxy, with them",
        "the machine grew by",
        "of it kernel objects",
        "target",
    ];
    let mut table = ResultTable::new(&format!("{count} idle connections"), &columns);
    let direct = &all[0];
    for taken in all {
        let each = (taken.proxy_after - taken.proxy_before) / count as f64;
        let many = taken.proxy_before + each * 10_000.0;
        let target = match taken.variant {
            ProxyVariant::Agent => at_most_target(many, MEMORY_TARGET_MIB, "MiB for 10 000"),
            _ => String::new(),
        };
        let proxy = |value: f64| match taken.variant {
            ProxyVariant::Direct => String::new(),
            _ => format!("{value:.1}"),
        };
        let more = |value: f64, direct: f64| format!("{value:.0} ({:+.0})", value - direct);
        table.add_row([
            taken.name.clone(),
            proxy(taken.proxy_before),
            proxy(taken.proxy_after),
            more(taken.machine_growth, direct.machine_growth),
            more(taken.slab_growth, direct.slab_growth),
            target,
        ]);
    }
    table
}
