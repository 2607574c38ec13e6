//! Connections that are open and silent: the memory that they take.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use super::{
    super::{Effort, Table, report::at_most},
    client::{self, all},
    http,
    lane::{Lane, Way},
    usage::Memory,
};

/// Connections that are being made at a time.
const AT_ONCE: usize = 50;
/// How long they are silent before the memory is looked at.
const SILENCE: Duration = Duration::from_secs(2);
/// What 10 000 may take of the proxy's memory, in MiB.
const LIMIT: f64 = 100.0;
/// Files that a process opens besides the two that it has for each connection.
const OTHER_FILES: usize = 500;

/// What the connections speak.
#[derive(Clone, Copy)]
enum Protocol {
    Tls,
    Http,
}

/// What a lane's connections take, in MiB.
struct Taken {
    name: String,
    way: Way,
    /// The proxy without connections.
    empty: f64,
    /// The proxy with them.
    full: f64,
    /// By how much the machine's memory in use grew.
    machine: f64,
    /// By how much the kernel's objects grew.
    slab: f64,
}

/// Measures idle connections: once, each time with a proxy that has done nothing else. There are as
/// many as a process may have that opens so many `files`.
pub fn run(effort: &Effort, files: u64) -> Result<Table> {
    let most = usize::try_from(files)?.saturating_sub(OTHER_FILES) / 2;
    let count = effort.idle.min(most) / AT_ONCE * AT_ONCE;
    let mut all = Vec::new();
    for (way, protocol) in [
        (Way::Direct, Protocol::Tls),
        (Way::Ours, Protocol::Tls),
        (Way::Ours, Protocol::Http),
        (Way::HaProxy, Protocol::Tls),
        (Way::Nginx, Protocol::Tls),
    ] {
        all.push(taken(&Lane::build(way)?, protocol, count)?);
    }
    Ok(table(count, &all))
}

fn taken(lane: &Lane, protocol: Protocol, count: usize) -> Result<Taken> {
    let _inside = lane.sandbox.inside.enter()?;
    let runtime = client::runtime()?;
    let pids = lane.pids();
    let before = Memory::now(&pids)?;
    let hello = Arc::clone(&lane.hello);
    let look = || {
        thread::sleep(SILENCE);
        Memory::now(&pids)
    };
    let after = match protocol {
        Protocol::Tls => {
            let open = move || {
                let hello = Arc::clone(&hello);
                async move { client::greeted(&hello).await }
            };
            let _held = runtime.block_on(held(count, open)).context(lane.way.name())?;
            let after = look()?;
            let open = lane.server.open();
            ensure!(open >= count, "{}: {open} connections are left", lane.way.name());
            after
        }
        Protocol::Http => {
            let _held = runtime.block_on(held(count, http::kept)).context(lane.way.name())?;
            look()?
        }
    };
    let name = match protocol {
        Protocol::Tls => lane.way.name().to_owned(),
        Protocol::Http => format!("{}, HTTP keep-alive", lane.way.name()),
    };
    Ok(Taken {
        name,
        way: lane.way,
        empty: before.processes,
        full: after.processes,
        machine: after.machine - before.machine,
        slab: after.slab - before.slab,
    })
}

/// So many connections, open.
async fn held<T, F>(count: usize, open: impl Fn() -> F + Clone + Send + 'static) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send,
{
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let open = open.clone();
        tasks.spawn(async move {
            let mut held = Vec::new();
            for _ in 0..count / AT_ONCE {
                held.push(open().await?);
            }
            Ok(held)
        });
    }
    all(tasks).await
}

fn table(count: usize, all: &[Taken]) -> Table {
    let columns = [
        "MiB (more than direct)",
        "the proxy, before",
        "the proxy, with them",
        "the machine grew by",
        "of it kernel objects",
        "target",
    ];
    let mut table = Table::new(&format!("{count} idle connections"), &columns);
    let direct = &all[0];
    for taken in all {
        let each = (taken.full - taken.empty) / count as f64;
        let many = taken.empty + each * 10_000.0;
        let target = match taken.way {
            Way::Ours => at_most(many, LIMIT, "MiB for 10 000"),
            _ => String::new(),
        };
        let proxy = |value: f64| match taken.way {
            Way::Direct => String::new(),
            _ => format!("{value:.1}"),
        };
        let more = |value: f64, direct: f64| format!("{value:.0} ({:+.0})", value - direct);
        table.row([
            taken.name.clone(),
            proxy(taken.empty),
            proxy(taken.full),
            more(taken.machine, direct.machine),
            more(taken.slab, direct.slab),
            target,
        ]);
    }
    table
}
