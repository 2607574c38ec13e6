//! A page that a sandbox fetches with curl, and the sites that there are.

use std::{fmt, path::Path};

use anyhow::Result;

use crate::{
    names::curl::{Curl, HANDSHAKE, REFUSED},
    probe::Seen,
    world::Namespace,
};

/// The sites of the demo's internet: a name, and the address that it has.
pub(super) const SITES: [(&str, &str); 4] = [
    ("shop.example", "198.51.100.20"),
    ("cdn.example", "198.51.100.21"),
    ("img.cdn.example", "198.51.100.22"),
    ("evil.test", "198.51.100.23"),
];

/// Fetching a page.
#[derive(Clone, Copy)]
pub(super) struct Page {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The name that is asked for, or an address.
    pub host: &'static str,
    /// The address that the sandbox's `/etc/hosts` gives the name.
    pub forged: Option<&'static str>,
}

impl Page {
    /// The address that the packets go to.
    fn address(&self) -> &'static str {
        let known = SITES.iter().find(|(name, _)| *name == self.host);
        self.forged.or(known.map(|(_, address)| *address)).unwrap_or(self.host)
    }

    /// Fetches it from inside a namespace; what counts as an answer is one of the real server.
    pub(super) fn fetch(&self, inside: &Namespace, files: &Path) -> Result<Seen> {
        let url = format!("{}://{}/", self.scheme, self.host);
        let line = format!("{} {}", self.address(), self.host);
        let fetched = Curl::fetching(inside, files, &url).with_hosts(&line).fetch()?;
        let real = Self { forged: None, ..*self }.address();
        Ok(match (fetched.exit, fetched.status) {
            (0, 200) if fetched.page()["server"] == real => Seen::Answered,
            (0, 200) => Seen::Failed("misled".to_owned()),
            (0, 403) => Seen::Forbidden,
            (HANDSHAKE | REFUSED, _) => Seen::Refused,
            _ => Seen::Failed(fetched.stderr),
        })
    }

    /// The arguments of `explain`.
    pub(super) fn question(&self) -> Vec<String> {
        let port = if self.scheme == "http" { "80" } else { "443" };
        let mut words = vec![self.address(), "--port", port];
        if self.host != self.address() {
            words.extend(["--host", self.host]);
        }
        words.into_iter().map(str::to_owned).collect()
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9}{}", self.scheme, self.host)?;
        match self.forged {
            Some(_) => f.write_str(", forged"),
            None => Ok(()),
        }
    }
}
