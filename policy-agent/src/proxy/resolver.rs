//! Turns allowed names into addresses. The sandbox has no say in it: the agent's own DNS servers
//! are asked, no hosts file and no search domains.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures_util::future::{Either, select};
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{ProtoError, rr},
    system_conf::read_system_conf,
};
use tokio::{sync::Semaphore, time::timeout};

use super::dns_cache::{CachedAddresses, DnsAnswer, DnsCache, DnsCacheEntry};
use crate::policy::DomainName;

/// How long DNS servers have for an answer. They are asked again meanwhile, and each answer counts.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer about the other family is waited for once one is there (RFC 8305, 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long it is remembered that a name has no address of a family, whatever the server says of it;
/// many say nothing (RFC 2308, 2.2).
const NEGATIVE_TTL: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(10)];
/// How long it is remembered that nobody answered (RFC 9520, 3.2), by family: a server that does not
/// answer about IPv6 most often does about IPv4.
const FAILURE_TTL: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1)];
/// Answers that are waited for at a time though nobody needs them at the moment: they come too late
/// for a connection, and early enough for the next.
const MAX_LATE_LOOKUPS: usize = 256;
/// Servers that are asked at a time: all that resolv.conf(5) may name.
const CONCURRENT_SERVERS: usize = 3;

/// Asks DNS servers, over UDP, and over TCP what does not fit.
pub struct DnsResolver {
    client: Arc<TokioResolver>,
    /// About IPv6 and IPv4.
    caches: [DnsCache; 2],
    late_lookups: Arc<Semaphore>,
}

/// A family, by the place of its answers.
#[derive(Clone, Copy)]
enum QueryFamily {
    V6 = 0,
    V4 = 1,
}

impl DnsResolver {
    /// Asks these servers; none: those of the host's resolv.conf.
    ///
    /// # Errors
    /// The resolver refuses its configuration.
    pub fn new(servers: &[SocketAddr]) -> Result<Self> {
        let servers = match servers {
            [] => system_nameservers(),
            given => given.iter().copied().map(nameserver_config).collect(),
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        configure(builder.options_mut());
        let client = Arc::new(builder.build().context("cannot set up the resolver")?);
        Ok(Self {
            client,
            caches: Default::default(),
            late_lookups: Arc::new(Semaphore::new(MAX_LATE_LOOKUPS)),
        })
    }

    /// The addresses of a name, IPv6 first. A family that fails is no failure.
    pub async fn resolve(&self, name: &DomainName) -> Vec<IpAddr> {
        let [v6, v4] =
            [QueryFamily::V6, QueryFamily::V4].map(|family| self.cache_entry(name, family));
        if let (Some(v6), Some(v4)) = (v6.resolved(), v4.resolved()) {
            return [&v6[..], &v4[..]].concat();
        }
        let ages = [v6.age(), v4.age()];
        let both = [(v6, QueryFamily::V6), (v4, QueryFamily::V4)];
        let [v6, v4] =
            both.map(|(entry, family)| Box::pin(self.resolve_family(name, family, entry)));
        let (first, other, since) = match select(v6, v4).await {
            Either::Left((v6, v4)) => (v6, v4, ages[QueryFamily::V4 as usize]),
            Either::Right((v4, v6)) => (v4, v6, ages[QueryFamily::V6 as usize]),
        };
        let mut found = first.to_vec();
        found.extend_from_slice(&self.wait_for_other_family(&first, other, since).await);
        found.sort_by_key(IpAddr::is_ipv4);
        found
    }

    fn cache_entry(&self, name: &DomainName, family: QueryFamily) -> Arc<DnsCacheEntry> {
        self.caches[family as usize].entry(name)
    }

    fn resolve_family(
        &self,
        name: &DomainName,
        family: QueryFamily,
        entry: Arc<DnsCacheEntry>,
    ) -> impl Future<Output = CachedAddresses> + Send + use<> {
        let (client, name) = (Arc::clone(&self.client), name.clone());
        async move { entry.get_or_resolve(query_dns(&client, &name, family)).await }
    }

    /// The answer about the other family. It is not waited for long when there are addresses already;
    /// `since`: how long somebody has waited for it.
    async fn wait_for_other_family(
        &self,
        found: &CachedAddresses,
        mut answer: impl Future<Output = CachedAddresses> + Send + Unpin + 'static,
        since: Duration,
    ) -> CachedAddresses {
        if found.is_empty() {
            return answer.await;
        }
        if let Ok(answer) = timeout(RESOLUTION_DELAY.saturating_sub(since), &mut answer).await {
            return answer;
        }
        if let Ok(permit) = Arc::clone(&self.late_lookups).try_acquire_owned() {
            tokio::spawn(async move {
                answer.await;
                drop(permit);
            });
        }
        CachedAddresses::default()
    }
}

async fn query_dns(client: &TokioResolver, name: &DomainName, family: QueryFamily) -> DnsAnswer {
    let kind = match family {
        QueryFamily::V6 => rr::RecordType::AAAA,
        QueryFamily::V4 => rr::RecordType::A,
    };
    let found = match fully_qualified(name) {
        Ok(name) => {
            let found = timeout(QUERY_TIMEOUT, client.lookup(name, kind)).await;
            found.unwrap_or(Err(NetError::Timeout))
        }
        Err(error) => Err(error.into()),
    };
    let now = Instant::now();
    match found {
        Ok(found) => {
            let addresses = found.answers().iter().filter_map(|one| one.data.ip_addr()).collect();
            DnsAnswer { addresses, valid_until: found.valid_until() }
        }
        Err(error) => {
            tracing::debug!("{kind} of {name}: {error}");
            DnsAnswer {
                addresses: CachedAddresses::default(),
                valid_until: now + failure_ttl(&error, family),
            }
        }
    }
}

/// The name as it goes into a question, label by label and as it is: there are more names in use than
/// the library would take from a text. It is fully qualified, never completed by a search domain.
fn fully_qualified(name: &DomainName) -> Result<rr::Name, ProtoError> {
    rr::Name::from_labels(name.as_str().split('.').map(str::as_bytes))
}

/// How long it is remembered that there are no addresses.
fn failure_ttl(error: &NetError, family: QueryFamily) -> Duration {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { negative_ttl, .. })) => {
            let [least, most] = NEGATIVE_TTL;
            negative_ttl.map_or(least, |ttl| Duration::from_secs(ttl.into()).clamp(least, most))
        }
        _ => FAILURE_TTL[family as usize],
    }
}

/// The servers of resolv.conf(5), which says that without any it is the host's own.
fn system_nameservers() -> Vec<NameServerConfig> {
    match read_system_conf() {
        Ok((config, _)) => config.name_servers().to_vec(),
        Err(error) => {
            tracing::warn!("no DNS server in resolv.conf, so the host's own is asked: {error}");
            vec![nameserver_config(([127, 0, 0, 1], 53).into())]
        }
    }
}

fn nameserver_config(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn configure(options: &mut ResolverOpts) {
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = QUERY_TIMEOUT;
    options.num_concurrent_reqs = CONCURRENT_SERVERS;
    options.max_active_requests = 1024;
    // Some servers refuse EDNS, and some firewalls drop it. What is longer than 512 bytes without it
    // comes over TCP; the host's own resolver does the same unless it is told otherwise.
    options.edns0 = false;
    // The answers are kept here.
    options.cache_size = 0;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use hickory_resolver::proto::{
        op::{Message, MessageType, ResponseCode},
        rr::{RData, Record, RecordType, rdata},
    };
    use tokio::{net::UdpSocket, task::JoinSet, time::sleep};

    use super::*;

    /// How a DNS server behaves that knows IPv4 addresses only.
    #[derive(Clone, Copy, Default)]
    struct FakeDnsBehavior {
        silent_about_v6: bool,
        /// What it does with EDNS: it answers so, or not at all.
        edns: Option<Option<ResponseCode>>,
        /// How long it takes.
        late: Duration,
    }

    /// A DNS server. What it was asked is in the list.
    async fn spawn_dns_server(behavior: FakeDnsBehavior) -> (DnsResolver, Arc<Mutex<Vec<String>>>) {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let list = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut bytes = [0; 1500];
            while let Ok((count, peer)) = socket.recv_from(&mut bytes).await {
                let message = Message::from_vec(&bytes[..count]).unwrap();
                let question = &message.queries[0];
                list.lock().unwrap().push(format!("{} {}", question.query_type(), question.name()));
                let Some(answer) = fake_response(message, behavior) else { continue };
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    sleep(behavior.late).await;
                    socket.send_to(&answer.to_vec().unwrap(), peer).await
                });
            }
        });
        (DnsResolver::new(&[address]).unwrap(), asked)
    }

    fn fake_response(mut message: Message, behavior: FakeDnsBehavior) -> Option<Message> {
        let question = message.queries[0].clone();
        let kind = question.query_type();
        if kind == RecordType::AAAA && behavior.silent_about_v6 {
            return None;
        }
        message.metadata.message_type = MessageType::Response;
        match behavior.edns {
            Some(code) if message.edns.is_some() => message.metadata.response_code = code?,
            _ if question.name().to_ascii().starts_with("unknown.") => {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            _ if kind == RecordType::A => {
                let data = RData::A(rdata::A::new(192, 0, 2, 7));
                message.add_answer(Record::from_rdata(question.name().clone(), 60, data));
            }
            _ => {}
        }
        Some(message)
    }

    fn query_count(asked: &Mutex<Vec<String>>, text: &str) -> usize {
        asked.lock().unwrap().iter().filter(|asked| *asked == text).count()
    }

    const FOUND: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))];

    #[tokio::test]
    async fn one_family_is_enough_and_answers_are_cached() {
        let good = DomainName::parse("good.example").unwrap();
        for silent_about_v6 in [false, true] {
            let (resolver, asked) =
                spawn_dns_server(FakeDnsBehavior { silent_about_v6, ..FakeDnsBehavior::default() })
                    .await;
            for _ in 0..3 {
                let start = Instant::now();
                assert_eq!(resolver.resolve(&good).await, FOUND);
                assert!(start.elapsed() < QUERY_TIMEOUT, "no server is waited for in vain");
            }
            assert_eq!(query_count(&asked, "A good.example."), 1, "{asked:?}");
            let expected = if silent_about_v6 { 1..=4 } else { 1..=1 };
            let about_v6 = query_count(&asked, "AAAA good.example.");
            assert!(expected.contains(&about_v6), "no records, and no SOA: {asked:?}");
        }
    }

    #[tokio::test]
    async fn concurrent_lookups_send_one_query() {
        let (resolver, asked) = spawn_dns_server(FakeDnsBehavior::default()).await;
        let (resolver, mut waiting) = (Arc::new(resolver), JoinSet::new());
        for _ in 0..50 {
            let resolver = Arc::clone(&resolver);
            waiting.spawn(async move {
                resolver.resolve(&DomainName::parse("good.example").unwrap()).await.len()
            });
        }
        assert_eq!(waiting.join_all().await, [1; 50]);
        assert_eq!(asked.lock().unwrap().len(), 2, "{asked:?}");
    }

    #[tokio::test]
    async fn the_hosts_file_and_search_domains_do_not_count() {
        let (resolver, asked) = spawn_dns_server(FakeDnsBehavior::default()).await;
        let name = DomainName::parse("unknown.example").unwrap();
        for _ in 0..3 {
            assert_eq!(resolver.resolve(&name).await, [] as [IpAddr; 0]);
        }
        let mut asked = asked.lock().unwrap().clone();
        asked.sort();
        assert_eq!(asked, ["A unknown.example.", "AAAA unknown.example."]);
    }

    #[tokio::test]
    async fn servers_without_edns_will_do() {
        let good = DomainName::parse("good.example").unwrap();
        for code in [Some(ResponseCode::FormErr), Some(ResponseCode::NotImp), None] {
            let (resolver, asked) = spawn_dns_server(FakeDnsBehavior {
                edns: Some(code),
                ..FakeDnsBehavior::default()
            })
            .await;
            assert_eq!(resolver.resolve(&good).await, FOUND, "{code:?}: {asked:?}");
        }
    }

    #[tokio::test]
    async fn late_answers_count() {
        let late = Duration::from_millis(3500);
        let (resolver, _) =
            spawn_dns_server(FakeDnsBehavior { late, ..FakeDnsBehavior::default() }).await;
        let good = DomainName::parse("good.example").unwrap();
        assert_eq!(resolver.resolve(&good).await, FOUND);
    }

    #[tokio::test]
    async fn odd_names_are_queried_as_they_are() {
        let (resolver, asked) = spawn_dns_server(FakeDnsBehavior::default()).await;
        for name in ["my_bucket.s3.example", "-a.example", "a-.b-.example", "_x.example"] {
            assert_eq!(
                resolver.resolve(&DomainName::parse_requested(name).unwrap()).await,
                FOUND,
                "{name}"
            );
            let said = asked.lock().unwrap().clone();
            assert!(
                said.iter().any(|said| said.contains(name.trim_start_matches('-'))),
                "{said:?}"
            );
        }
    }
}
