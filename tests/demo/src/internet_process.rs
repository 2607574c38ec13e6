//! The servers of the demo's internet in a separate process, so that they can outlive the demo.

#![expect(clippy::print_stdout, reason = "a demo prints")]

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, ensure};

use super::{page_fetch::DEMO_SITES, secret_step::API_SITE};
use policy_testbed::{
    named_internet::{
        NamedInternet,
        certificate_authority::ServerCertificate,
        dns_zone::DnsAnswer,
        recording_origin::{RecordingOrigin, SeenRequest},
    },
    network::{NetworkNamespace, internet_addresses},
    test_servers::{ServerPorts, TestServers},
};

const READY_LINE: &str = "ready";

/// The server process.
pub(crate) struct InternetProcess {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
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
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().context("starting the servers")?;
        let questions = child.stdin.take().context("the servers' input")?;
        let answers = BufReader::new(child.stdout.take().context("the servers' output")?);
        let mut answering = Self { child, questions, answers };
        let line = answering.read_answer()?;
        ensure!(line == READY_LINE, "the servers did not start: {line}");
        Ok(answering)
    }

    fn read_answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// The last request that the server of [`API_SITE`] got.
    pub(crate) fn last_request(&mut self) -> Result<String> {
        self.questions.write_all(b"\n")?;
        self.read_answer()
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
    print_answer(&said)?;
    let (_servers, _names, api) = servers?;
    for _question in io::stdin().lines() {
        let requests = api.requests();
        print_answer(&requests.last().map(describe_request).unwrap_or_default())?;
    }
    // The demo has ended, and left the servers running.
    loop {
        thread::park();
    }
}

fn print_answer(line: &str) -> Result<()> {
    println!("{line}");
    Ok(io::stdout().flush()?)
}

/// `GET /orders  authorization: Bearer …`
fn describe_request(request: &SeenRequest) -> String {
    let SeenRequest { method, path, .. } = request;
    format!("{method} {path}  authorization: {}", request.values("authorization").join(", "))
}

fn start_servers(files: &Path) -> Result<(TestServers, NamedInternet, RecordingOrigin)> {
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
    let (name, address) = API_SITE;
    let api = RecordingOrigin::start_here(&names, name, ServerCertificate::Valid)?;
    ensure!(api.site.v4.to_string() == address, "{name} is not at {address}");
    Ok((servers, names, api))
}
