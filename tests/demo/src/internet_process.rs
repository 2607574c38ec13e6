//! The servers of the demo's internet in a separate process, so that they can outlive the demo.

#![expect(clippy::print_stdout, reason = "a demo prints")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, ensure};

use super::page_fetch::DEMO_SITES;
use policy_testbed::{
    named_internet::{NamedInternet, dns_zone::DnsAnswer},
    network::{NetworkNamespace, internet_addresses},
    test_servers::{ServerPorts, TestServers},
};

const READY_LINE: &str = "ready";

/// The server process.
pub(crate) struct InternetProcess {
    child: Child,
}

impl InternetProcess {
    /// Starts the process and waits until it is ready. It writes the files of its clients to
    /// `files`.
    pub(crate) fn start(namespace: &NetworkNamespace, files: &Path) -> Result<Self> {
        let this = std::env::current_exe().context("looking for the demo's own binary")?;
        let mut command: Command = namespace.command(&this.to_string_lossy())?;
        // The process must not inherit the demo's output, which would stay open as long as it runs.
        command
            .arg("answer")
            .arg(files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut answering = Self { child: command.spawn().context("starting the servers")? };
        let output = answering.child.stdout.take().context("the servers' output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == READY_LINE, "the servers did not start: {}", line.trim());
        Ok(answering)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for InternetProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The main function of that process: serves in the namespace in which it was started.
///
/// # Errors
/// The servers cannot be started. The demo receives the error.
pub(crate) fn serve_internet(files: &Path) -> Result<()> {
    let servers = start_servers(files);
    let said =
        servers.as_ref().map_or_else(|error| format!("{error:#}"), |_| READY_LINE.to_owned());
    println!("{said}");
    std::io::stdout().flush()?;
    let _servers = servers?;
    loop {
        thread::park();
    }
}

fn start_servers(files: &Path) -> Result<(TestServers, NamedInternet)> {
    let servers = TestServers::start_here(
        &internet_addresses::all_addresses(),
        ServerPorts::WithoutDnsAndWeb,
    )?;
    let names = NamedInternet::start_here(files)?;
    for (name, address) in DEMO_SITES {
        let site = names.add_site_here(name)?;
        ensure!(site.v4.to_string() == address, "{name} is at {}, not at {address}", site.v4);
        // An IPv4 address only, so that it is certain which address responds.
        names.zone.set_answer(name, DnsAnswer::with_addresses(&[site.v4]));
    }
    Ok((servers, names))
}
