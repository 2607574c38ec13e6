//! Turns allowed names into addresses. The sandbox has no say in it: the agent's own DNS servers
//! are asked, no hosts file and no search domains; answers are kept as long as their TTL says.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::RecordType,
    system_conf::read_system_conf,
};
use tokio::time::timeout;

use crate::policy::Name;

/// How long one DNS server has for its answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long an answer about the other family is waited for once one is there (RFC 8305, 3).
const OTHER_FAMILY: Duration = Duration::from_millis(50);
/// How long it is remembered that a name does not exist.
const NEGATIVE: Duration = Duration::from_secs(10);

/// Asks DNS servers, over UDP, and over TCP what does not fit.
pub struct Resolver(TokioResolver);

impl Resolver {
    /// Asks these servers; none: those of the host's resolv.conf.
    ///
    /// # Errors
    /// The resolver refuses its configuration.
    pub fn new(servers: &[SocketAddr]) -> Result<Self> {
        let servers = match servers {
            [] => of_the_host(),
            given => given.iter().copied().map(server).collect(),
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        options(builder.options_mut());
        Ok(Self(builder.build().context("cannot set up the resolver")?))
    }

    /// The addresses of a name, IPv6 first. A family that fails is no failure.
    pub async fn addresses(&self, name: &Name) -> Vec<IpAddr> {
        let name = format!("{name}."); // fully qualified: never completed by a search domain
        let (v6, v4) = (self.of(&name, RecordType::AAAA), self.of(&name, RecordType::A));
        tokio::pin!(v6, v4);
        let mut found = Vec::new();
        tokio::select! {
            v6 = &mut v6 => { found.extend(v6); found.extend(other(&found, v4).await) }
            v4 = &mut v4 => { found.extend(v4); found.extend(other(&found, v6).await) }
        }
        found.sort_by_key(IpAddr::is_ipv4);
        found
    }

    async fn of(&self, name: &str, kind: RecordType) -> Vec<IpAddr> {
        match self.0.lookup(name, kind).await {
            Ok(answer) => answer.answers().iter().filter_map(|one| one.data.ip_addr()).collect(),
            Err(error) => {
                tracing::debug!("{kind} of {name}: {error}");
                Vec::new()
            }
        }
    }
}

/// The answer about the other family. It is not waited for long when there are addresses already.
async fn other(found: &[IpAddr], answer: impl Future<Output = Vec<IpAddr>>) -> Vec<IpAddr> {
    if found.is_empty() {
        return answer.await;
    }
    timeout(OTHER_FAMILY, answer).await.unwrap_or_default()
}

/// The servers of resolv.conf(5), which says that without any it is the host's own.
fn of_the_host() -> Vec<NameServerConfig> {
    match read_system_conf() {
        Ok((config, _)) => config.name_servers().to_vec(),
        Err(error) => {
            tracing::warn!("no DNS server in resolv.conf, so the host's own is asked: {error}");
            vec![server(([127, 0, 0, 1], 53).into())]
        }
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn options(options: &mut ResolverOpts) {
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = ANSWER;
    options.negative_max_ttl = Some(NEGATIVE);
    options.max_active_requests = 1024;
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Instant,
    };

    use hickory_resolver::proto::{
        op::{Message, MessageType, ResponseCode},
        rr::{RData, Record, rdata},
    };
    use tokio::net::UdpSocket;

    use super::*;

    /// A DNS server that knows IPv4 addresses only. What it was asked is in the list.
    async fn server(silent_about_v6: bool) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let list = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut bytes = [0; 1500];
            while let Ok((count, peer)) = socket.recv_from(&mut bytes).await {
                let mut message = Message::from_vec(&bytes[..count]).unwrap();
                let question = message.queries[0].clone();
                let kind = question.query_type();
                list.lock().unwrap().push(format!("{kind} {}", question.name()));
                if kind == RecordType::AAAA && silent_about_v6 {
                    continue;
                }
                message.metadata.message_type = MessageType::Response;
                if question.name().to_ascii().starts_with("unknown.") {
                    message.metadata.response_code = ResponseCode::NXDomain;
                } else if kind == RecordType::A {
                    let data = RData::A(rdata::A::new(192, 0, 2, 7));
                    message.add_answer(Record::from_rdata(question.name().clone(), 60, data));
                }
                socket.send_to(&message.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        (address, asked)
    }

    #[tokio::test]
    async fn one_family_is_enough_and_answers_are_kept() {
        let good = Name::parse("good.example").unwrap();
        for silent_about_v6 in [false, true] {
            let (address, asked) = server(silent_about_v6).await;
            let resolver = Resolver::new(&[address]).unwrap();
            for _ in 0..3 {
                let start = Instant::now();
                assert_eq!(resolver.addresses(&good).await, [IpAddr::from([192, 0, 2, 7])]);
                assert!(start.elapsed() < ANSWER, "no server is waited for in vain");
            }
            let asked = asked.lock().unwrap();
            let count = |text: &str| asked.iter().filter(|asked| *asked == text).count();
            assert_eq!(count("A good.example."), 1, "{asked:?}");
            assert!(asked.iter().all(|asked| asked.ends_with(" good.example.")), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn the_hosts_file_and_search_domains_do_not_count() {
        let (address, asked) = server(false).await;
        let resolver = Resolver::new(&[address]).unwrap();
        let name = Name::parse("unknown.example").unwrap();
        assert_eq!(resolver.addresses(&name).await, [] as [IpAddr; 0]);
        let mut asked = asked.lock().unwrap().clone();
        asked.sort();
        assert_eq!(asked, ["A unknown.example.", "AAAA unknown.example."]);
    }
}
