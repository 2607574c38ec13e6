//! An internet with names: DNS servers, and web servers with certificates. A test adds sites as it
//! needs them, each with a name and addresses of its own.
//!
//! - [`zone`] and [`dns`] say what names mean.
//! - [`authority`] issues certificates, and [`pages`] is what web servers show.
//! - [`socks`] is a SOCKS5 proxy, and [`daemon`] are servers from Debian's packages.
//! - [`program`] runs a program in a sandbox; [`curl`], [`hello`] and [`raw`] are what programs there do,
//!   good ones and others.

pub mod authority;
pub mod curl;
pub mod daemon;
pub mod dns;
pub mod hello;
pub mod pages;
pub mod program;
pub mod raw;
mod site;
pub mod socks;
pub(crate) mod web;
pub mod zone;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU8},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub use site::Site;

use crate::world::{Namespace, internet, unique};
use authority::Authority;
use web::Visits;
use zone::Zone;

/// The servers of an internet with names; they end on drop.
pub struct Names {
    /// What its names mean.
    pub zone: Zone,
    /// Who issues its certificates.
    pub authority: Arc<Authority>,
    visits: Visits,
    sites: AtomicU8,
    runtime: Runtime,
    files: PathBuf,
    _own: Option<TempDir>,
}

impl Names {
    /// DNS at every public address and web servers at all addresses of the internet.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let _inside = namespace.enter()?;
        let own = tempfile::Builder::new().prefix(&unique("names")).tempdir()?;
        let mut names = Self::start_here(own.path())?;
        names._own = Some(own);
        Ok(names)
    }

    /// The same in the namespace that the thread is in, with the files of clients in a directory.
    pub fn start_here(files: &Path) -> Result<Self> {
        // The runtime's threads stay in the namespace that they are started in.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("starting the servers' threads")?;
        let names = Self {
            zone: Zone::default(),
            authority: Arc::new(Authority::new()?),
            visits: Visits::default(),
            sites: AtomicU8::new(0),
            runtime,
            files: files.to_owned(),
            _own: None,
        };
        fs::write(files.join(curl::CA), names.authority.pem())?;
        program::prepare(files)?;
        let entered = names.runtime.enter();
        for address in internet::addresses() {
            web::serve(&names.authority, &names.visits, address)?;
        }
        for address in internet::PUBLIC {
            dns::serve(&names.zone, address.parse()?)?;
        }
        drop(entered);
        Ok(names)
    }

    /// The directory of what a client needs.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// Connections that came to the web servers of an address.
    pub fn visits(&self, address: IpAddr) -> usize {
        self.visits.to(address)
    }
}
