//! Real curl in a sandbox, with a resolv.conf and a hosts file of the sandbox's own.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::client_program;
use crate::{
    network::{NetworkNamespace, command, unique_name},
    testbed::{OrFail as _, TestSandbox},
    wait::WAIT_LIMIT,
};

/// The authority's certificate, among a client's files.
pub const CA_FILE: &str = "ca.pem";
/// How long a transfer may take: so many times what anything may take.
const TRANSFER_TIMEOUT_FACTOR: u32 = 2;

/// A curl that is to be run.
pub struct CurlCommand<'a> {
    namespace: &'a NetworkNamespace,
    client_files: &'a Path,
    hosts: String,
    arguments: Vec<String>,
}

/// What it saw.
#[derive(Clone, Debug)]
pub struct CurlResult {
    /// curl's exit status; 0 when it got an answer, whatever the answer says.
    pub exit_code: i32,
    /// Of the answer; 0 without one.
    pub status: u64,
    /// The version of HTTP, like `1.1`.
    pub version: String,
    /// How many connections it took.
    pub connections: u64,
    /// The answer's body.
    pub body: Vec<u8>,
    /// What curl complained about.
    pub stderr: String,
}

/// curl's exit status when a connection is refused at once.
pub const EXIT_CONNECTION_REFUSED: i32 = 7;
/// curl's exit status when a TLS handshake fails, as by an alert.
pub const EXIT_TLS_HANDSHAKE: i32 = 35;

impl CurlResult {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What a web server of the tests says of itself; null when none answered.
    pub fn page_json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Whether the server at `address` answered.
    #[track_caller]
    pub fn assert_from(&self, address: IpAddr) {
        let expected = Value::from(address.to_string());
        let text = self.text().chars().take(300).collect::<String>();
        assert_eq!(self.page_json()["server"], expected, "{} {} {text}", self.status, self.stderr);
    }

    /// Whether a TLS handshake ended in an alert that says that the policy denies it.
    #[track_caller]
    pub fn assert_denied_by_alert(&self) {
        self.assert_alert("alert access denied");
    }

    /// Whether a TLS handshake ended in an alert that says that something failed.
    #[track_caller]
    pub fn assert_failed_by_alert(&self) {
        self.assert_alert("alert internal error");
    }

    #[track_caller]
    fn assert_alert(&self, alert: &str) {
        let alerted =
            self.exit_code == EXIT_TLS_HANDSHAKE && self.stderr.to_lowercase().contains(alert);
        assert!(alerted, "exit status {}: {} {}", self.exit_code, self.stderr, self.text());
    }

    /// Whether a request was refused with this status and reason.
    #[track_caller]
    pub fn assert_refused(&self, status: u64, reason: &str) {
        let text = self.text();
        assert_eq!(self.status, status, "exit status {}: {} {text}", self.exit_code, self.stderr);
        assert!(text.contains(reason), "{reason} is not in {text:?}");
    }
}

impl<'a> CurlCommand<'a> {
    /// Will fetch `url` from inside a namespace; `files` are a client's.
    pub fn new(inside: &'a NetworkNamespace, files: &'a Path, url: &str) -> Self {
        let mut curl = Self {
            namespace: inside,
            client_files: files,
            hosts: String::new(),
            arguments: Vec::new(),
        };
        let ca = files.join(CA_FILE).to_string_lossy().into_owned();
        let limit = (TRANSFER_TIMEOUT_FACTOR * *WAIT_LIMIT).as_secs().to_string();
        for argument in ["-sS", "--max-time", &limit, "--cacert", &ca, url] {
            curl.arguments.push(argument.to_owned());
        }
        curl
    }

    /// With more arguments.
    #[must_use]
    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Told that every name is at this address, as by a forged DNS answer.
    #[must_use]
    pub fn resolving_to(self, address: IpAddr) -> Self {
        let forged = [80, 443].map(|port| format!("*:{port}:{address}"));
        self.with_arguments(&["--resolve", &forged[0], "--resolve", &forged[1]])
    }

    /// With this line in `/etc/hosts`.
    #[must_use]
    pub fn with_hosts_line(mut self, line: &str) -> Self {
        self.hosts += line;
        self.hosts.push('\n');
        self
    }

    /// Runs it.
    pub fn try_run(self) -> Result<CurlResult> {
        let hosts = self.client_files.join(unique_name("hosts"));
        fs::write(&hosts, format!("127.0.0.1 localhost\n{}", self.hosts))?;
        let mut curl = client_program::client_command_with_hosts(
            self.namespace,
            self.client_files,
            &hosts,
            "curl".as_ref(),
        )?;
        curl.args(["--write-out", "%{stderr}\n%{json}"]).args(&self.arguments);
        let output = command::run_unchecked(&mut curl);
        fs::remove_file(&hosts)?;
        let output = output?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let (complaint, facts) = stderr.rsplit_once('\n').context("curl says nothing")?;
        let facts: Value = serde_json::from_str(facts)
            .with_context(|| format!("what curl says is no JSON: {stderr}"))?;
        Ok(CurlResult {
            exit_code: output.status.code().unwrap_or(-1),
            status: facts["http_code"].as_u64().unwrap_or(0),
            version: facts["http_version"].as_str().unwrap_or_default().to_owned(),
            connections: facts["num_connects"].as_u64().unwrap_or(0),
            body: output.stdout,
            stderr: complaint.trim().to_owned(),
        })
    }

    /// The same; a curl that cannot be run ends the test.
    #[track_caller]
    pub fn run(self) -> CurlResult {
        self.try_run().or_fail("running curl")
    }
}

impl TestSandbox {
    /// A curl in this sandbox.
    pub fn curl(&self, url: &str) -> CurlCommand<'_> {
        CurlCommand::new(&self.namespace, self.testbed.named_internet().client_files(), url)
    }
}
