//! `[gateway]`: where the public URLs of sandboxes are served.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Result, anyhow, bail};
use serde::Deserialize;

use crate::policy::Name;

/// Bytes of a DNS label.
const MAX_LABEL: usize = 63;
/// Bytes that stand before the domain of a public URL: a label of the longest kind, and a dot.
const BEFORE_DOMAIN: usize = MAX_LABEL + 1;
/// Bytes of a DNS name.
const MAX_NAME: usize = 253;

/// `[gateway]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Public domain of the sandboxes.
    pub domain: Option<String>,
    /// Plain HTTP address.
    pub http: Option<SocketAddr>,
    /// HTTPS address.
    pub https: Option<SocketAddr>,
    /// Certificate chain, PEM. With `https` and without this, the gateway makes a certificate that
    /// nobody but itself has signed.
    pub tls_cert: Option<PathBuf>,
    /// Private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Connections that one sandbox may have through the gateway at a time.
    pub max_connections_per_sandbox: u32,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            domain: None,
            http: None,
            https: None,
            tls_cert: None,
            tls_key: None,
            max_connections_per_sandbox: 1024,
        }
    }
}

impl Gateway {
    /// What types alone cannot say.
    ///
    /// # Errors
    /// Names the key that is wrong.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(domain) = &self.domain {
            check_domain(domain)?;
        }
        let addresses = [("http", self.http), ("https", self.https)];
        for (key, _) in addresses.iter().filter(|(_, address)| address.is_some()) {
            if self.domain.is_none() {
                bail!("gateway.{key}: needs gateway.domain, below which the sandboxes' names are");
            }
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => bail!("gateway.tls_cert: needs gateway.tls_key"),
            (None, Some(_)) => bail!("gateway.tls_key: needs gateway.tls_cert"),
            _ => {}
        }
        if self.max_connections_per_sandbox == 0 {
            bail!("gateway.max_connections_per_sandbox: 0 would refuse everyone; write 1 or more");
        }
        Ok(())
    }

    /// The public URL of a port of a sandbox: by HTTPS if that is served, else by HTTP. `None`:
    /// neither is, or the ID is too long for one.
    pub(super) fn url(&self, id: &str, port: u16) -> Option<String> {
        let label = format!("{port}-{id}");
        if label.len() > MAX_LABEL {
            return None;
        }
        let (scheme, usual, address) = match (self.https, self.http) {
            (Some(address), _) => ("https", 443, address),
            (None, Some(address)) => ("http", 80, address),
            (None, None) => return None,
        };
        let host = format!("{label}.{}", self.domain.as_ref()?);
        Some(match address.port() {
            port if port == usual => format!("{scheme}://{host}"),
            port => format!("{scheme}://{host}:{port}"),
        })
    }
}

fn check_domain(domain: &str) -> Result<()> {
    let name = Name::parse(domain);
    let name = name.map_err(|problem| anyhow!("gateway.domain: {domain:?}: {problem}"))?;
    if name.as_str() != domain {
        bail!("gateway.domain: {domain:?}: write it as {:?}", name.as_str());
    }
    if domain.len() > MAX_NAME - BEFORE_DOMAIN {
        bail!("gateway.domain: {domain:?}: leaves no room for the sandboxes' names below it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(text: &str) -> Gateway {
        toml::from_str(text).expect("a gateway")
    }

    fn problem(text: &str) -> String {
        gateway(text).check().expect_err(text).to_string()
    }

    #[test]
    fn what_it_needs_is_named() {
        assert!(problem(r#"http = "0.0.0.0:80""#).starts_with("gateway.http: needs"));
        assert!(problem(r#"https = "0.0.0.0:443""#).starts_with("gateway.https: needs"));
        assert!(problem(r#"tls_cert = "/c""#).starts_with("gateway.tls_cert: needs"));
        assert!(problem(r#"tls_key = "/k""#).starts_with("gateway.tls_key: needs"));
        let none = problem("max_connections_per_sandbox = 0");
        assert!(none.starts_with("gateway.max_connections_per_sandbox: "));
    }

    #[test]
    fn a_domain_is_a_lower_case_name() {
        for wrong in ["Sandbox.Example", "a..b", "a_b.example", "*.example", "example.", "10.0.0.1"]
        {
            let problem = problem(&format!("domain = {wrong:?}"));
            assert!(problem.starts_with(&format!("gateway.domain: {wrong:?}: ")), "{problem}");
        }
        let long = vec!["a".repeat(60); 4].join(".");
        assert!(problem(&format!("domain = {long:?}")).contains("no room"));
        gateway("domain = \"sandbox.localhost\"").check().expect("a right domain");
    }

    #[test]
    fn urls_are_as_short_as_they_can_be() {
        let url = |text: &str| gateway(&format!("domain = \"d.example\"\n{text}")).url("web", 8080);
        let is = |url: &str| Some(url.to_owned());
        assert_eq!(url(""), None);
        assert_eq!(url(r#"http = "0.0.0.0:80""#), is("http://8080-web.d.example"));
        assert_eq!(url(r#"http = "0.0.0.0:8000""#), is("http://8080-web.d.example:8000"));
        assert_eq!(url(r#"https = "0.0.0.0:443""#), is("https://8080-web.d.example"));
        let both = "http = \"0.0.0.0:80\"\nhttps = \"0.0.0.0:8443\"";
        assert_eq!(url(both), is("https://8080-web.d.example:8443"));
        let gateway = gateway("domain = \"d.example\"\nhttp = \"0.0.0.0:80\"");
        assert_eq!(gateway.url(&"a".repeat(63), 8080), None, "no label is that long");
    }
}
