//! Fetches a page from a sandbox with curl, and lists the demo's sites.

use std::{fmt, path::Path};

use anyhow::Result;

use policy_testbed::{
    named_internet::curl::{CurlCommand, EXIT_CONNECTION_REFUSED, EXIT_TLS_HANDSHAKE},
    network::NetworkNamespace,
    probe::ProbeResult,
};

/// The sites of the demo's internet: names and their addresses.
pub(crate) const DEMO_SITES: [(&str, &str); 4] = [
    ("shop.example", "198.51.100.20"),
    ("cdn.example", "198.51.100.21"),
    ("img.cdn.example", "198.51.100.22"),
    ("evil.test", "198.51.100.23"),
];

/// A page to fetch.
#[derive(Clone, Copy)]
pub(crate) struct PageFetch {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// A name or an address.
    pub(crate) host: &'static str,
    /// The address of the name in the sandbox's `/etc/hosts`.
    pub(crate) forged_address: Option<&'static str>,
}

impl PageFetch {
    /// The destination address of the packets.
    fn target_address(&self) -> &'static str {
        let known = DEMO_SITES.iter().find(|(name, _)| *name == self.host);
        self.forged_address.or(known.map(|(_, address)| *address)).unwrap_or(self.host)
    }

    /// Fetches the page from inside a namespace. Only a response from the real server counts as
    /// one.
    pub(crate) fn fetch(&self, inside: &NetworkNamespace, files: &Path) -> Result<ProbeResult> {
        let url = format!("{}://{}/", self.scheme, self.host);
        let line = format!("{} {}", self.target_address(), self.host);
        let fetched = CurlCommand::new(inside, files, &url).with_hosts_line(&line).try_run()?;
        let real = Self { forged_address: None, ..*self }.target_address();
        Ok(match (fetched.exit_code, fetched.status) {
            (0, 200) if fetched.page_json()["server"] == real => ProbeResult::Answered,
            (0, 200) => ProbeResult::Failed("misled".to_owned()),
            (0, 403) => ProbeResult::Forbidden,
            (EXIT_TLS_HANDSHAKE | EXIT_CONNECTION_REFUSED, _) => ProbeResult::Refused,
            _ => ProbeResult::Failed(fetched.stderr),
        })
    }

    /// The arguments of `explain`.
    pub(crate) fn explain_arguments(&self) -> Vec<String> {
        let port = if self.scheme == "http" { "80" } else { "443" };
        let mut words = vec![self.target_address(), "--port", port];
        if self.host != self.target_address() {
            words.extend(["--host", self.host]);
        }
        words.into_iter().map(str::to_owned).collect()
    }
}

impl fmt::Display for PageFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9}{}", self.scheme, self.host)?;
        match self.forged_address {
            Some(_) => f.write_str(", forged"),
            None => Ok(()),
        }
    }
}
