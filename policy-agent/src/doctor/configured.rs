//! Checks of what the configuration names: interfaces, listeners, certificates, resolvers.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, SystemTime},
};

use hickory_resolver::system_conf::read_system_conf;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{parse_x509_certificate, time::ASN1Time};

use super::{DoctorFinding, FindingState, read_sysctl, secret_files::check_secrets};
use crate::{
    agent::{InterfaceState, PooledInterface, probe_interface},
    config::AgentConfig,
    dataplane::{is_bridge_port, run_in_netns},
};

/// How long a resolver may take to answer.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(2);
/// A query for the name servers of the root, RFC 1035, 4.1: ID 1, recursion desired, one question.
const ROOT_QUERY: [u8; 17] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
/// A certificate that ends within this time is reported.
const CERTIFICATE_NOTICE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Checks what the configuration names. `socket` tells whether the agent itself has the listeners.
pub(crate) fn configuration_checks(config: &AgentConfig, socket: &Path) -> Vec<DoctorFinding> {
    let pool = config.pooled_interfaces();
    let mut findings: Vec<DoctorFinding> = pool.iter().map(check_interface).collect();
    findings.extend(check_forwarding(&pool));
    findings.extend(check_listeners(config, socket));
    findings.extend(check_certificate(config));
    findings.push(check_resolvers(config));
    findings.extend(check_secrets(config));
    findings
}

fn check_interface(pooled: &PooledInterface) -> DoctorFinding {
    const WHAT: &str = "interface";
    let name = &pooled.interface.name;
    match probe_interface(&pooled.interface) {
        InterfaceState::Present(_) => {}
        InterfaceState::NoInterface => {
            let found = format!("{name} does not exist: no sandbox can get it");
            return DoctorFinding::missing(
                WHAT,
                found,
                "create it, or remove it from [[interfaces]]",
            );
        }
        InterfaceState::NoNamespace(problem) | InterfaceState::Unknown(problem) => {
            let found = format!("{name}: {problem}");
            return DoctorFinding::missing(
                WHAT,
                found,
                "look as root; fix netns in [[interfaces]]",
            );
        }
    }
    match is_bridge_port(&pooled.interface) {
        Ok(true) => DoctorFinding::degraded(
            WHAT,
            format!("{name} is a port of a bridge: no domain rules and no egressProxy"),
            "take it off the bridge and route to it",
        ),
        Ok(false) => DoctorFinding::ok(WHAT, name),
        Err(error) => DoctorFinding::degraded(WHAT, format!("{name}: {error:#}"), "look as root"),
    }
}

/// Packets of sandboxes pass the host only if it forwards, in the namespaces of their interfaces.
fn check_forwarding(pool: &[PooledInterface]) -> Vec<DoctorFinding> {
    const WHAT: &str = "forwarding";
    let families = [("IPv4", "net.ipv4.ip_forward"), ("IPv6", "net.ipv6.conf.all.forwarding")];
    let mut findings = Vec::new();
    for (family, sysctl) in families {
        let is_of_family = |address: &IpAddr| address.is_ipv4() == (family == "IPv4");
        let uses = |pooled: &&PooledInterface| pooled.addresses.iter().any(is_of_family);
        for pooled in pool.iter().filter(uses) {
            let netns = pooled.interface.netns.as_deref();
            let value = run_in_netns(netns, || Ok(read_sysctl(sysctl)));
            let found = format!("{family} is off for {}", pooled.interface.name);
            let fix = format!("sysctl -w {sysctl}=1, in the network namespace of the interface");
            if let Ok(Some(0)) = value {
                findings.push(DoctorFinding::missing(WHAT, found, fix));
                break;
            }
        }
    }
    if findings.is_empty() && !pool.is_empty() {
        findings.push(DoctorFinding::ok(WHAT, "on for the interfaces of [[interfaces]]"));
    }
    findings
}

fn check_listeners(config: &AgentConfig, socket: &Path) -> Vec<DoctorFinding> {
    let gateway = config.gateway.as_ref();
    let listeners = [
        ("api.listen", config.api.listen),
        ("metrics.listen", config.metrics.listen),
        ("gateway.http", gateway.and_then(|gateway| gateway.http)),
        ("gateway.https", gateway.and_then(|gateway| gateway.https)),
    ];
    let is_running = UnixStream::connect(socket).is_ok();
    let configured = listeners.into_iter().filter_map(|(key, address)| Some((key, address?)));
    configured.map(|(key, address)| check_listener(key, address, is_running)).collect()
}

fn check_listener(key: &str, address: SocketAddr, is_running: bool) -> DoctorFinding {
    const WHAT: &str = "listener";
    match TcpListener::bind(address) {
        Ok(_) => DoctorFinding::ok(WHAT, format!("{key} {address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_running => {
            DoctorFinding::ok(WHAT, format!("{key} {address} is in use, and an agent runs"))
        }
        Err(error) => DoctorFinding::missing(
            WHAT,
            format!("{key} {address}: {error}"),
            "stop what listens there (ss -ltnp), or write another address",
        ),
    }
}

/// The operator's certificate. One that the gateway makes itself is no concern.
fn check_certificate(config: &AgentConfig) -> Option<DoctorFinding> {
    const WHAT: &str = "certificate";
    let path = config.gateway.as_ref()?.tls_cert.as_ref()?;
    let shown = path.display();
    Some(match read_certificate_end(path) {
        Err(problem) => DoctorFinding::missing(
            WHAT,
            format!("{shown}: {problem}"),
            "put the certificate chain there, PEM, and make root its owner",
        ),
        Ok(end) if end <= SystemTime::now() => DoctorFinding::missing(
            WHAT,
            format!("{shown} has expired"),
            "renew it: the gateway reads it again by itself",
        ),
        Ok(end) if end <= SystemTime::now() + CERTIFICATE_NOTICE => DoctorFinding::degraded(
            WHAT,
            format!("{shown} expires within {} days", CERTIFICATE_NOTICE.as_secs() / (24 * 3600)),
            "renew it: the gateway reads it again by itself",
        ),
        Ok(_) => DoctorFinding::ok(WHAT, format!("{shown} is valid")),
    })
}

/// When the first certificate of a PEM file ends. An error if it is not valid yet.
fn read_certificate_end(path: &Path) -> Result<SystemTime, String> {
    let pem = fs::read(path).map_err(|error| error.to_string())?;
    let first = CertificateDer::pem_slice_iter(&pem).next().ok_or("there is no certificate")?;
    let first = first.map_err(|error| error.to_string())?;
    let (_, certificate) = parse_x509_certificate(&first).map_err(|error| error.to_string())?;
    let validity = certificate.validity();
    if validity.not_before > ASN1Time::now() {
        return Err("it is not valid yet".to_owned());
    }
    let end = u64::try_from(validity.not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(end))
}

fn check_resolvers(config: &AgentConfig) -> DoctorFinding {
    const WHAT: &str = "resolvers";
    let configured = &config.proxy.resolvers;
    let servers = if configured.is_empty() { system_resolvers() } else { configured.clone() };
    let (answering, silent): (Vec<_>, Vec<_>) =
        servers.iter().partition(|server| answers_query(**server).is_ok());
    let names =
        |list: &[&SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if silent.is_empty() && !answering.is_empty() {
        return DoctorFinding::ok(WHAT, format!("{} answer", names(&answering)));
    }
    let found = match servers.is_empty() {
        true => "none: names do not resolve".to_owned(),
        false => format!("no answer from {}", names(&silent)),
    };
    let fix = "write servers that answer into [proxy] resolvers; sandboxes without names need none";
    // Only those of the configuration are known to be meant for sandboxes.
    let broken = answering.is_empty() && !configured.is_empty();
    let state = if broken { FindingState::Missing } else { FindingState::Degraded };
    DoctorFinding { state, ..DoctorFinding::degraded(WHAT, found, fix) }
}

fn system_resolvers() -> Vec<SocketAddr> {
    const DNS_PORT: u16 = 53;
    let servers = read_system_conf().map(|(config, _)| config);
    let servers = servers.iter().flat_map(|config| config.name_servers());
    let mut servers: Vec<_> = servers.map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect();
    servers.dedup();
    servers
}

/// Whether a DNS server answers anything.
fn answers_query(server: SocketAddr) -> io::Result<()> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(RESOLVER_TIMEOUT))?;
    socket.connect(server)?;
    socket.send(&ROOT_QUERY)?;
    socket.recv(&mut [0; 512]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_by_their_dates() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cert.pem");
        let day = Duration::from_secs(24 * 3600);
        let state = |not_before: SystemTime, not_after: SystemTime| {
            let mut params =
                rcgen::CertificateParams::new(["a.example".to_owned()]).expect("names");
            (params.not_before, params.not_after) = (not_before.into(), not_after.into());
            let key = rcgen::KeyPair::generate().expect("a key");
            fs::write(&path, params.self_signed(&key).expect("signed").pem()).expect("written");
            let text =
                format!("[gateway]\ndomain = \"a.example\"\ntls_cert = {path:?}\ntls_key = \"/k\"");
            let config: AgentConfig = toml::from_str(&text).expect("TOML");
            check_certificate(&config).expect("a certificate").state
        };
        let now = SystemTime::now();
        assert_eq!(state(now - day, now + 90 * day), FindingState::Ok);
        assert_eq!(state(now - day, now + day), FindingState::Degraded);
        assert_eq!(state(now - 2 * day, now - day), FindingState::Missing);
        assert_eq!(state(now + day, now + 2 * day), FindingState::Missing);
    }

    #[test]
    fn a_resolver_that_answers_is_found_and_a_silent_one_named() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("an address");
        let config: AgentConfig =
            toml::from_str(&format!("[proxy]\nresolvers = [\"{address}\"]")).expect("TOML");
        let answering = std::thread::spawn(move || {
            let mut query = [0; 512];
            let (length, from) = server.recv_from(&mut query).expect("a query");
            assert_eq!(query[..length], ROOT_QUERY);
            server.send_to(&query[..length], from).expect("sent");
        });
        assert_eq!(check_resolvers(&config).state, FindingState::Ok);
        answering.join().expect("it answered");
        let silent = check_resolvers(&config);
        assert_eq!(silent.state, FindingState::Missing);
        assert!(silent.found.contains(&address.to_string()), "{silent:?}");
    }

    #[test]
    fn a_listener_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        let finding = check_listener("api.listen", address, false);
        assert_eq!(finding.state, FindingState::Missing);
        assert!(finding.found.starts_with(&format!("api.listen {address}")), "{finding:?}");
        assert_eq!(check_listener("api.listen", address, true).state, FindingState::Ok);
    }
}
