//! Connections that are judged by name, through the agent's proxy, beside the same through HAProxy
//! and nginx, and beside a direct one.

mod client;
mod connections;
mod hello;
mod http;
mod idle;
pub(super) mod lane;
mod ours;
mod peer;
pub(super) mod process;
mod server;
mod transfer;
pub(super) mod usage;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Effort, Table};
use lane::{Lane, Way};

/// Files that one process may open, at most: enough for all idle connections and what they are moved
/// through.
const FILES: u64 = 1 << 18;

/// Measures proxied connections.
pub fn run(effort: &Effort) -> Result<Vec<Table>> {
    let files = raise_files()?;
    let idle = idle::run(effort, files)?;
    let ways =
        [Way::Direct, Way::Ours, Way::HaProxy, Way::HaProxyLarge, Way::Nginx, Way::NginxLarge];
    let mut lanes = ways.into_iter().map(Lane::build).collect::<Result<Vec<_>>>()?;
    let mut tables = transfer::run(effort, &mut lanes)?;
    lanes.retain(|lane| !lane.way.is_large());
    tables.push(connections::run(effort, &mut lanes)?);
    tables.push(http::run(effort, &mut lanes)?);
    tables.push(idle);
    Ok(tables)
}

/// Raises the limit on open files of this process and of those that it starts, as far as it may.
fn raise_files() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < FILES && setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).is_ok() {
        return Ok(FILES);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit on open files")?;
    Ok(hard)
}
