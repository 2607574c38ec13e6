//! `[gateway]`: where the public URLs of sandboxes are served.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow, bail};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::DomainName;

/// Bytes of a DNS label.
const MAX_LABEL_LEN: usize = 63;
/// Bytes that stand before the domain of a public URL: a label of the longest kind, and a dot.
const DOMAIN_PREFIX_LEN: usize = MAX_LABEL_LEN + 1;
/// Bytes of a DNS name.
const MAX_NAME_LEN: usize = 253;

/// `[gateway]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
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
    /// Where the daemon of E2B's SDKs listens in a sandbox, exempt from token and host mask since it
    /// checks access itself; 0: nowhere.
    pub envd_port: u16,
    /// Addresses and networks of the proxies whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<String>,
    /// Whether connections of trusted proxies begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            domain: None,
            http: None,
            https: None,
            tls_cert: None,
            tls_key: None,
            max_connections_per_sandbox: 1024,
            envd_port: 49983,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

impl GatewayConfig {
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
        self.trusted_proxies()?;
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            bail!(
                "gateway.proxy_protocol: needs gateway.trusted_proxies, from which it is accepted"
            );
        }
        Ok(())
    }

    /// The networks whose word about a client counts.
    ///
    /// # Errors
    /// Names the entry that is no network, or is everyone.
    pub fn trusted_proxies(&self) -> Result<Vec<IpNet>> {
        let entries = self.trusted_proxies.iter().enumerate();
        let networks = entries.map(|(index, entry)| {
            parse_proxy_network(entry)
                .with_context(|| format!("gateway.trusted_proxies[{index}]: {entry:?}"))
        });
        networks.collect()
    }

    /// The public URL of a port of a sandbox: by HTTPS if that is served, else by HTTP. `None`:
    /// neither is, or the ID is too long for one.
    pub(super) fn public_url(&self, id: &str, port: u16) -> Option<String> {
        let label = format!("{port}-{id}");
        if label.len() > MAX_LABEL_LEN {
            return None;
        }
        let (scheme, default_port, address) = match (self.https, self.http) {
            (Some(address), _) => ("https", 443, address),
            (None, Some(address)) => ("http", 80, address),
            (None, None) => return None,
        };
        let host = format!("{label}.{}", self.domain.as_ref()?);
        Some(match address.port() {
            port if port == default_port => format!("{scheme}://{host}"),
            port => format!("{scheme}://{host}:{port}"),
        })
    }
}

fn parse_proxy_network(entry: &str) -> Result<IpNet> {
    let address = entry.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    let network = address.ok().or_else(|| entry.parse().ok()).map(|network: IpNet| network.trunc());
    let network = network.context("write an address or a network, like 10.0.0.0/8")?;
    if network.prefix_len() == 0 {
        bail!(
            "is everyone, and any visitor could claim to be another; write your proxies' networks"
        );
    }
    Ok(network)
}

fn check_domain(domain: &str) -> Result<()> {
    let name = DomainName::parse(domain);
    let name = name.map_err(|problem| anyhow!("gateway.domain: {domain:?}: {problem}"))?;
    if domain.contains('_') {
        // RFC 5280, 4.2.1.6: no certificate is made out to such a name.
        bail!("gateway.domain: {domain:?}: '_' cannot stand in the name of a certificate");
    }
    if name.as_str() != domain {
        bail!("gateway.domain: {domain:?}: write it as {:?}", name.as_str());
    }
    if domain.len() > MAX_NAME_LEN - DOMAIN_PREFIX_LEN {
        bail!("gateway.domain: {domain:?}: leaves no room for the sandboxes' names below it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(text: &str) -> GatewayConfig {
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
    fn trusted_proxies_are_networks_and_not_everyone() {
        let networks = |list: &str| {
            gateway(&format!("trusted_proxies = [{list}]")).trusted_proxies().map(|networks| {
                networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            })
        };
        let right = networks(r#""192.0.2.7", "198.51.100.9/24", "2001:db8::/32""#);
        assert_eq!(right.expect("networks"), "192.0.2.7/32 198.51.100.0/24 2001:db8::/32");
        for wrong in
            ["192.0.2.0/33", "lb.example.com", "", "192.0.2.1-192.0.2.9", "0.0.0.0/0", "::/0"]
        {
            let list = format!("trusted_proxies = [\"192.0.2.1\", {wrong:?}]");
            let error = format!("{:#}", gateway(&list).check().expect_err(wrong));
            let named = format!("gateway.trusted_proxies[1]: {wrong:?}: ");
            assert!(error.starts_with(&named) && error.contains("write"), "{error}");
        }
        let alone = problem("proxy_protocol = true");
        assert!(alone.starts_with("gateway.proxy_protocol: needs gateway.trusted_proxies"));
        gateway("proxy_protocol = true\ntrusted_proxies = [\"192.0.2.1\"]").check().expect("both");
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
        let url = |text: &str| {
            gateway(&format!("domain = \"d.example\"\n{text}")).public_url("web", 8080)
        };
        let is = |url: &str| Some(url.to_owned());
        assert_eq!(url(""), None);
        assert_eq!(url(r#"http = "0.0.0.0:80""#), is("http://8080-web.d.example"));
        assert_eq!(url(r#"http = "0.0.0.0:8000""#), is("http://8080-web.d.example:8000"));
        assert_eq!(url(r#"https = "0.0.0.0:443""#), is("https://8080-web.d.example"));
        let both = "http = \"0.0.0.0:80\"\nhttps = \"0.0.0.0:8443\"";
        assert_eq!(url(both), is("https://8080-web.d.example:8443"));
        let gateway = gateway("domain = \"d.example\"\nhttp = \"0.0.0.0:80\"");
        assert_eq!(gateway.public_url(&"a".repeat(63), 8080), None, "no label is that long");
    }
}
