//! `egressProxy`: the SOCKS5 proxy that tunnels a sandbox's outbound TCP.

use std::{fmt, net::IpAddr};

use super::{
    EgressProxy, Floor, ProxyTls, SecretString, ValidationError,
    authority::{self, DomainOrIp},
};

/// Maximum length in bytes of a name, username or password in SOCKS5 (RFC 1928, RFC 1929).
const MAX_SOCKS5_BYTES: usize = 255;

/// A validated `egressProxy`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Socks5Proxy {
    /// The proxy's host. A name is resolved for every connection, and every resolved address is
    /// then checked against the floor.
    pub host: DomainOrIp,
    /// The proxy's port.
    pub port: u16,
    /// The credentials. `None` means no authentication.
    pub credentials: Option<Socks5Credentials>,
    /// TLS to the proxy. `None` means no encryption.
    pub tls: Option<Socks5Tls>,
}

/// TLS to the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Socks5Tls {
    /// The name or address that the proxy's certificate must be valid for: that of the proxy, or
    /// another.
    pub server_name: DomainOrIp,
    /// Certificates (PEM) of the issuing authority. `None` means the public authorities.
    pub ca_pem: Option<String>,
}

/// Username and password (RFC 1929).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Socks5Credentials {
    /// Never empty.
    pub username: String,
    /// Empty if not set.
    pub password: SecretString,
}

impl Socks5Proxy {
    /// Validates a user's proxy.
    pub(super) fn new(proxy: &EgressProxy, floor: &Floor) -> Result<Self, ValidationError> {
        let (host, port) = parse_proxy_address(&proxy.address, floor)?;
        let credentials = parse_credentials(proxy)?;
        let tls = proxy.tls.as_ref().map(|tls| parse_proxy_tls(tls, &host)).transpose()?.flatten();
        Ok(Self { host, port, credentials, tls })
    }

    /// Whether the proxy may have this address. A name's addresses are checked at every connection.
    #[must_use]
    pub fn may_be_dialed(floor: &Floor, address: IpAddr) -> bool {
        // The agent itself connects to the proxy, from the host. Private addresses remain denied
        // even if the operator allows them to sandboxes with a shorter `platform_deny`.
        let closed = !Floor::default().admits(address) && floor.matching_allow(address).is_none();
        !closed && floor.admits(address)
    }
}

fn parse_proxy_address(text: &str, floor: &Floor) -> Result<(DomainOrIp, u16), ValidationError> {
    let field = "network.egressProxy.address";
    if text.contains('@') {
        // Not quoted, because a password may precede the @.
        let problem = "write host:port; username and password have fields of their own";
        return Err(ValidationError::about_field(field, problem));
    }
    let refuse = |problem: String| ValidationError::about_entry(field, text, problem);
    if text.len() > MAX_SOCKS5_BYTES {
        return Err(refuse(format!("longer than {MAX_SOCKS5_BYTES} bytes")));
    }
    let (host, port) = authority::parse_authority(text).map_err(refuse)?;
    let port = port.ok_or_else(|| refuse("the port is missing; write host:port".to_owned()))?;
    if let DomainOrIp::Address(address) = host
        && !Socks5Proxy::may_be_dialed(floor, address)
    {
        let problem = "a private or denied address; the operator can add it to platform_allow";
        return Err(refuse(problem.to_owned()));
    }
    Ok((host, port))
}

fn parse_proxy_tls(
    tls: &ProxyTls,
    host: &DomainOrIp,
) -> Result<Option<Socks5Tls>, ValidationError> {
    let (server, ca) = match tls {
        ProxyTls::Enabled(false) => return Ok(None),
        ProxyTls::Enabled(true) => (None, None),
        ProxyTls::Options { server_name, ca } => (server_name.as_deref(), ca.clone()),
    };
    let server = match server {
        None => host.clone(),
        Some(text) => {
            let field = "network.egressProxy.tls.serverName";
            match authority::parse_authority(text) {
                Ok((server, None)) => server,
                Ok(_) => {
                    return Err(ValidationError::about_entry(
                        field,
                        text,
                        "write it without a port",
                    ));
                }
                Err(problem) => return Err(ValidationError::about_entry(field, text, problem)),
            }
        }
    };
    if ca.as_ref().is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
        let problem = "write certificates in PEM, -----BEGIN CERTIFICATE----- and so on";
        return Err(ValidationError::about_field("network.egressProxy.tls.ca", problem));
    }
    Ok(Some(Socks5Tls { server_name: server, ca_pem: ca }))
}

fn parse_credentials(proxy: &EgressProxy) -> Result<Option<Socks5Credentials>, ValidationError> {
    let username = proxy.username.as_deref().unwrap_or_default();
    let password = proxy.password.as_ref().map(SecretString::reveal).unwrap_or_default();
    for (field, value) in [("username", username), ("password", password)] {
        if value.len() > MAX_SOCKS5_BYTES {
            let problem = format!("longer than {MAX_SOCKS5_BYTES} bytes");
            return Err(ValidationError::about_field(
                format!("network.egressProxy.{field}"),
                problem,
            ));
        }
    }
    if username.is_empty() {
        if !password.is_empty() {
            let problem = "a password needs a username beside it";
            return Err(ValidationError::about_field("network.egressProxy.password", problem));
        }
        return Ok(None);
    }
    let password = SecretString::new(password.to_owned());
    Ok(Some(Socks5Credentials { username: username.to_owned(), password }))
}

impl fmt::Display for Socks5Proxy {
    /// `host:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests;
