//! An internet with names: DNS servers, and web servers with certificates. Each test adds its own
//! sites, each with a name and addresses.
//!
//! - [`dns_zone`] and [`dns_server`] resolve the names.
//! - [`certificate_authority`] issues certificates, and [`web_pages`] has the content of the web
//!   servers.
//! - [`recording_origin`] is a server that remembers its requests, and [`server_process`] runs servers
//!   from Debian's packages.
//! - [`client_program`] runs a program in a sandbox. [`curl`], [`client_hello`] and [`raw_http`]
//!   are clients in a sandbox, well-behaved or not.

pub mod certificate_authority;
pub mod client_hello;
pub mod client_program;
pub mod curl;
pub mod dns_server;
pub mod dns_zone;
pub mod raw_http;
pub mod recording_origin;
pub mod server_process;
pub mod web_pages;
pub(crate) mod web_server;
mod web_site;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU8},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};

pub use web_site::WebSite;

use crate::network::{NetworkNamespace, internet_addresses, unique_directory};
use certificate_authority::CertificateAuthority;
use dns_zone::DnsZone;
use web_server::ConnectionCounts;

/// The servers of an internet with names. They end on drop.
pub struct NamedInternet {
    /// The DNS zone.
    pub zone: DnsZone,
    /// The authority that issues the certificates.
    pub authority: Arc<CertificateAuthority>,
    connection_counts: ConnectionCounts,
    site_count: AtomicU8,
    runtime: Runtime,
    client_files: PathBuf,
    _own_files: Option<TempDir>,
}

impl NamedInternet {
    /// Starts DNS at every public address and web servers at all addresses of the internet.
    pub fn start(namespace: &NetworkNamespace) -> Result<Self> {
        let _inside = namespace.enter()?;
        let own = unique_directory("names")?;
        let mut names = Self::start_here(own.path())?;
        names._own_files = Some(own);
        Ok(names)
    }

    /// Starts the servers in the calling thread's namespace. `files` is the directory of the
    /// clients.
    pub fn start_here(files: &Path) -> Result<Self> {
        // The runtime's threads inherit the namespace.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("starting the servers' threads")?;
        let names = Self {
            zone: DnsZone::default(),
            authority: Arc::new(CertificateAuthority::new()?),
            connection_counts: ConnectionCounts::default(),
            site_count: AtomicU8::new(0),
            runtime,
            client_files: files.to_owned(),
            _own_files: None,
        };
        fs::write(files.join(curl::CA_FILE), names.authority.pem())?;
        client_program::write_client_files(files, "")?;
        let entered = names.runtime.enter();
        for address in internet_addresses::all_addresses() {
            web_server::serve(&names.authority, &names.connection_counts, address)?;
        }
        for address in internet_addresses::PUBLIC_ADDRESSES {
            dns_server::serve(&names.zone, address.parse()?)?;
        }
        drop(entered);
        Ok(names)
    }

    /// The directory of the clients' files.
    pub fn client_files(&self) -> &Path {
        &self.client_files
    }

    /// The runtime of the servers. Its threads are in the internet's namespace.
    pub fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    /// The number of connections to the web servers of an address.
    pub fn connection_count(&self, address: IpAddr) -> usize {
        self.connection_counts.count_for(address)
    }
}
