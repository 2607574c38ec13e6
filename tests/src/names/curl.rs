//! Real curl in a sandbox, with a resolv.conf and a hosts file of the sandbox's own.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::program;
use crate::{
    patience::PATIENCE,
    stage::{Guest, OrFail as _},
    world::{Namespace, command, unique},
};

/// The authority's certificate, among a client's files.
pub const CA: &str = "ca.pem";
/// How long a transfer may take: so many times what anything may take.
const LONGEST: u32 = 2;

/// A curl that is to be run.
pub struct Curl<'a> {
    inside: &'a Namespace,
    files: &'a Path,
    hosts: String,
    arguments: Vec<String>,
}

/// What it saw.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// curl's exit status; 0 when it got an answer, whatever the answer says.
    pub exit: i32,
    /// Of the answer; 0 without one.
    pub status: u64,
    /// The version of HTTP, like `1.1`.
    pub version: String,
    /// How many connections it took.
    pub connects: u64,
    /// The answer's body.
    pub body: Vec<u8>,
    /// What curl complained about.
    pub stderr: String,
}

/// curl's exit status when a connection is refused at once.
pub const REFUSED: i32 = 7;
/// curl's exit status when a TLS handshake fails, as by an alert.
pub const HANDSHAKE: i32 = 35;

impl Fetched {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What a web server of the tests says of itself; null when none answered.
    pub fn page(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Whether the server at `address` answered.
    #[track_caller]
    pub fn is_from(&self, address: IpAddr) {
        let expected = Value::from(address.to_string());
        let text = self.text().chars().take(300).collect::<String>();
        assert_eq!(self.page()["server"], expected, "{} {} {text}", self.status, self.stderr);
    }

    /// Whether a TLS handshake ended in an alert that says that the policy denies it.
    #[track_caller]
    pub fn is_denied(&self) {
        self.is_alerted("alert access denied");
    }

    /// Whether a TLS handshake ended in an alert that says that something failed.
    #[track_caller]
    pub fn has_failed(&self) {
        self.is_alerted("alert internal error");
    }

    #[track_caller]
    fn is_alerted(&self, alert: &str) {
        let alerted = self.exit == HANDSHAKE && self.stderr.to_lowercase().contains(alert);
        assert!(alerted, "exit status {}: {} {}", self.exit, self.stderr, self.text());
    }

    /// Whether a request was refused with this status and reason.
    #[track_caller]
    pub fn is_refused(&self, status: u64, reason: &str) {
        let text = self.text();
        assert_eq!(self.status, status, "exit status {}: {} {text}", self.exit, self.stderr);
        assert!(text.contains(reason), "{reason} is not in {text:?}");
    }
}

impl<'a> Curl<'a> {
    /// Will fetch `url` from inside a namespace; `files` are a client's.
    pub fn fetching(inside: &'a Namespace, files: &'a Path, url: &str) -> Self {
        let mut curl = Self { inside, files, hosts: String::new(), arguments: Vec::new() };
        let ca = files.join(CA).to_string_lossy().into_owned();
        let limit = (LONGEST * *PATIENCE).as_secs().to_string();
        for argument in ["-sS", "--max-time", &limit, "--cacert", &ca, url] {
            curl.arguments.push(argument.to_owned());
        }
        curl
    }

    /// With more arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Told that every name is at this address, as by a forged DNS answer.
    #[must_use]
    pub fn misled_to(self, address: IpAddr) -> Self {
        let forged = [80, 443].map(|port| format!("*:{port}:{address}"));
        self.with(&["--resolve", &forged[0], "--resolve", &forged[1]])
    }

    /// With this line in `/etc/hosts`.
    #[must_use]
    pub fn with_hosts(mut self, line: &str) -> Self {
        self.hosts += line;
        self.hosts.push('\n');
        self
    }

    /// Runs it.
    pub fn fetch(self) -> Result<Fetched> {
        let hosts = self.files.join(unique("hosts"));
        fs::write(&hosts, format!("127.0.0.1 localhost\n{}", self.hosts))?;
        let mut curl = program::with_hosts(self.inside, self.files, &hosts, "curl".as_ref())?;
        curl.args(["--write-out", "%{stderr}\n%{json}"]).args(&self.arguments);
        let output = command::output(&mut curl);
        fs::remove_file(&hosts)?;
        let output = output?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let (complaint, facts) = stderr.rsplit_once('\n').context("curl says nothing")?;
        let facts: Value = serde_json::from_str(facts)
            .with_context(|| format!("what curl says is no JSON: {stderr}"))?;
        Ok(Fetched {
            exit: output.status.code().unwrap_or(-1),
            status: facts["http_code"].as_u64().unwrap_or(0),
            version: facts["http_version"].as_str().unwrap_or_default().to_owned(),
            connects: facts["num_connects"].as_u64().unwrap_or(0),
            body: output.stdout,
            stderr: complaint.trim().to_owned(),
        })
    }

    /// The same; a curl that cannot be run ends the test.
    #[track_caller]
    pub fn run(self) -> Fetched {
        self.fetch().or_fail("running curl")
    }
}

impl Guest {
    /// A curl in this sandbox.
    pub fn curl(&self, url: &str) -> Curl<'_> {
        Curl::fetching(&self.inside, self.stage.names().files(), url)
    }
}
