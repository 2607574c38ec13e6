//! `[gateway]`: the listeners for the public URLs of sandboxes.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::domain_setting::{DomainSetting, MAX_LABEL_LEN};

/// The settings of `[gateway]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// The public domains of the sandboxes. The first one is in their URLs.
    pub domain: Option<DomainSetting>,
    /// The address of the HTTP listener.
    pub http: Option<SocketAddr>,
    /// The address of the HTTPS listener.
    pub https: Option<SocketAddr>,
    /// The certificate chain, PEM. With `https` and without a certificate, the gateway generates a
    /// self-signed one.
    pub tls_cert: Option<PathBuf>,
    /// The private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// A directory of further certificates and keys, `NAME.crt` and `NAME.key`, chosen by the name
    /// that a client asks for.
    pub tls_directory: Option<PathBuf>,
    /// The maximum number of concurrent connections to one sandbox through the gateway.
    pub max_connections_per_sandbox: u32,
    /// The maximum number of open connections of one client to the gateway, whatever it asks for;
    /// 0: any number. A /64 network of IPv6 counts as one client.
    pub max_connections_per_client: u32,
    /// The port in a sandbox on which envd, E2B's daemon, listens; 0 if there is none. Requests to
    /// it need no traffic token and keep their Host header, since envd checks access itself.
    pub envd_port: u16,
    /// The ports on which services of all sandboxes speak HTTP/2 and nothing else. On other ports
    /// the gateway finds out.
    pub http2_ports: Vec<u16>,
    /// Whether clients that show a sandbox's traffic token may open TCP connections to its ports with
    /// CONNECT, for SSH and other tools.
    pub tcp_tunnels: bool,
    /// How long after its creation a sandbox's ports are waited for if they refuse connections, in
    /// seconds.
    pub start_timeout: u32,
    /// How long requests in progress may take when the agent stops, in seconds.
    pub drain_timeout: u32,
    /// Addresses and networks of the proxies whose `X-Forwarded-*` headers are trusted.
    pub trusted_proxies: Vec<String>,
    /// Whether connections from trusted proxies begin with a PROXY protocol header.
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
            tls_directory: None,
            max_connections_per_sandbox: 1024,
            max_connections_per_client: 0,
            envd_port: 49983,
            http2_ports: Vec::new(),
            tcp_tunnels: false,
            start_timeout: 1,
            drain_timeout: 10,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

impl GatewayConfig {
    /// Validates what the types cannot express.
    ///
    /// # Errors
    /// A key is invalid; the error names it.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(domains) = &self.domain {
            domains.check()?;
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
        if self.http2_ports.contains(&0) {
            bail!("gateway.http2_ports: 0 is no port; write the ports of the services");
        }
        self.trusted_proxies()?;
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            bail!(
                "gateway.proxy_protocol: needs gateway.trusted_proxies, from which it is accepted"
            );
        }
        Ok(())
    }

    /// All domains.
    #[must_use]
    pub fn domains(&self) -> &[String] {
        self.domain.as_ref().map_or(&[], DomainSetting::as_slice)
    }

    /// The domain in the URLs of sandboxes.
    #[must_use]
    pub fn first_domain(&self) -> Option<&str> {
        self.domains().first().map(String::as_str)
    }

    /// The networks of the trusted proxies.
    ///
    /// # Errors
    /// An entry is not a network, or covers all addresses; the error names it.
    pub fn trusted_proxies(&self) -> Result<Vec<IpNet>> {
        let entries = self.trusted_proxies.iter().enumerate();
        let networks = entries.map(|(index, entry)| {
            parse_proxy_network(entry)
                .with_context(|| format!("gateway.trusted_proxies[{index}]: {entry:?}"))
        });
        networks.collect()
    }

    /// The public URL of a port of a sandbox: HTTPS if that is served, otherwise HTTP. `None` if
    /// neither is served, or if the ID is too long for a host name.
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
        let host = format!("{label}.{}", self.first_domain()?);
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
        assert!(problem("http2_ports = [50051, 0]").starts_with("gateway.http2_ports: 0 is"));
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
