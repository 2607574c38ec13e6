//! Measures connections that are judged by name, through the agent's proxy, compared with HAProxy,
//! nginx and a direct connection.

pub(crate) mod agent_proxy;
pub(crate) mod bench_process;
mod bench_server;
mod bulk_transfer;
mod http_load;
mod idle_connections;
mod load_client;
pub(crate) mod proxy_peers;
pub(crate) mod proxy_setup;
pub(crate) mod resource_usage;
mod short_connections;
pub(crate) mod wire_protocol;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{BenchProfile, ResultTable};
use proxy_setup::{ProxySetup, ProxyVariant};

/// The maximum number of open files of a process: enough for all idle connections and the pipes
/// that relay them.
const OPEN_FILE_LIMIT: u64 = 1 << 18;

/// Measures proxied connections.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let files = raise_open_file_limit()?;
    let idle = idle_connections::run(effort, files)?;
    let ways = [
        ProxyVariant::Direct,
        ProxyVariant::Agent,
        ProxyVariant::HaProxy,
        ProxyVariant::HaProxyLarge,
        ProxyVariant::Nginx,
        ProxyVariant::NginxLarge,
    ];
    let mut lanes = ways.into_iter().map(ProxySetup::build).collect::<Result<Vec<_>>>()?;
    let mut tables = bulk_transfer::run(effort, &mut lanes)?;
    lanes.retain(|lane| !lane.variant.is_bulk_only());
    tables.push(short_connections::run(effort, &mut lanes)?);
    tables.push(http_load::run(effort, &mut lanes)?);
    tables.push(idle);
    Ok(tables)
}

/// Raises the limit on open files of this process and its children as far as permitted.
fn raise_open_file_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < OPEN_FILE_LIMIT
        && setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILE_LIMIT, OPEN_FILE_LIMIT).is_ok()
    {
        return Ok(OPEN_FILE_LIMIT);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit on open files")?;
    Ok(hard)
}
