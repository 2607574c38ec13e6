//! Runs curl in a sandbox, with the sandbox's own resolv.conf and hosts file.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::client_program;
use crate::{
    network::{NetworkNamespace, command, unique_name},
    testbed::{OrFail as _, TestSandbox},
    wait::WAIT_LIMIT,
};

/// The authority's certificate in a client's directory.
pub const CA_FILE: &str = "ca.pem";
/// The time limit of a transfer, as a multiple of [`WAIT_LIMIT`].
const TRANSFER_TIMEOUT_FACTOR: u32 = 2;

/// A curl command.
pub struct CurlCommand<'a> {
    namespace: &'a NetworkNamespace,
    client_files: &'a Path,
    hosts: String,
    arguments: Vec<String>,
}

/// The result of a curl command.
#[derive(Clone, Debug)]
pub struct CurlResult {
    /// curl's exit status; 0 for any HTTP response.
    pub exit_code: i32,
    /// The status of the response; 0 without one.
    pub status: u64,
    /// The HTTP version, for example `1.1`.
    pub version: String,
    /// The number of connections that curl opened.
    pub connections: u64,
    /// The body of the response.
    pub body: Vec<u8>,
    /// curl's standard error.
    pub stderr: String,
}

/// curl's exit status for a refused connection.
pub const EXIT_CONNECTION_REFUSED: i32 = 7;
/// curl's exit status for a failed TLS handshake, for example through an alert.
pub const EXIT_TLS_HANDSHAKE: i32 = 35;

impl CurlResult {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON page of a test web server; null if none responded.
    pub fn page_json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Asserts that the server at `address` responded.
    #[track_caller]
    pub fn assert_from(&self, address: IpAddr) {
        let expected = Value::from(address.to_string());
        let text = self.text().chars().take(300).collect::<String>();
        assert_eq!(self.page_json()["server"], expected, "{} {} {text}", self.status, self.stderr);
    }

    /// Asserts that the TLS handshake ended with the alert for a denied name.
    #[track_caller]
    pub fn assert_denied_by_alert(&self) {
        self.assert_alert("alert access denied");
    }

    /// Asserts that the TLS handshake ended with the alert for a failure.
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

    /// Asserts that the request was refused with this status and reason.
    #[track_caller]
    pub fn assert_refused(&self, status: u64, reason: &str) {
        let text = self.text();
        assert_eq!(self.status, status, "exit status {}: {} {text}", self.exit_code, self.stderr);
        assert!(text.contains(reason), "{reason} is not in {text:?}");
    }
}

impl<'a> CurlCommand<'a> {
    /// A curl command that fetches `url` from inside a namespace. `files` is a client's directory.
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

    /// Adds arguments.
    #[must_use]
    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Resolves every name to this address, like a forged DNS response.
    #[must_use]
    pub fn resolving_to(self, address: IpAddr) -> Self {
        let forged = [80, 443].map(|port| format!("*:{port}:{address}"));
        self.with_arguments(&["--resolve", &forged[0], "--resolve", &forged[1]])
    }

    /// Adds a line to `/etc/hosts`.
    #[must_use]
    pub fn with_hosts_line(mut self, line: &str) -> Self {
        self.hosts += line;
        self.hosts.push('\n');
        self
    }

    /// Runs the command.
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

    /// Runs the command; panics if it cannot be started.
    #[track_caller]
    pub fn run(self) -> CurlResult {
        self.try_run().or_fail("running curl")
    }
}

impl TestSandbox {
    /// A curl command in this sandbox.
    pub fn curl(&self, url: &str) -> CurlCommand<'_> {
        CurlCommand::new(&self.namespace, self.testbed.named_internet().client_files(), url)
    }
}
