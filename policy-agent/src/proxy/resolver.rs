//! Resolves allowed names to addresses. The sandbox cannot influence the result: the agent queries
//! its own DNS servers, without a hosts file or search domains.

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

use super::{
    dns_cache::{CachedAddresses, DnsAnswer, DnsCache, DnsCacheEntry},
    lookup_limiter::LookupLimiter,
};
use crate::policy::DomainName;

/// Time limit of a DNS lookup. Queries are repeated within it, and every answer counts.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for the second family once the first has answered (RFC 8305, 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Lower and upper bound of the negative TTL. Many servers send none (RFC 2308, 2.2).
const NEGATIVE_TTL: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(10)];
/// How long a failed lookup is cached (RFC 9520, 3.2), for IPv6 and IPv4. A server that does not
/// answer IPv6 queries usually answers IPv4 ones.
const FAILURE_TTL: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1)];
/// Maximum number of lookups that go on without a waiting connection. Their answers come too late
/// for one connection, and in time for the next.
const MAX_LATE_LOOKUPS: usize = 256;
/// Servers that are queried concurrently: as many as resolv.conf(5) may name.
const CONCURRENT_SERVERS: usize = 3;

/// A resolver that queries over UDP, and over TCP if the answer does not fit.
pub(super) struct DnsResolver {
    client: Arc<TokioResolver>,
    /// The caches of IPv6 and IPv4, indexed by [`QueryFamily`].
    caches: [DnsCache; 2],
    late_lookups: Arc<Semaphore>,
}

/// An address family, as an index.
#[derive(Clone, Copy)]
enum QueryFamily {
    V6 = 0,
    V4 = 1,
}

impl DnsResolver {
    /// Uses these servers, or those of the host's resolv.conf if there are none.
    ///
    /// # Errors
    /// The resolver refuses its configuration.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self> {
        let servers = match servers {
            [] => system_nameservers(),
            servers => servers.iter().copied().map(nameserver_config).collect(),
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

    /// The addresses of a name, IPv6 first. If one family fails, the result contains only the
    /// other. A name that is not cached waits for its turn among the sandbox's lookups.
    pub(super) async fn resolve(
        &self,
        name: &DomainName,
        lookup_limiter: &LookupLimiter,
    ) -> Vec<IpAddr> {
        let [v6, v4] = [QueryFamily::V6, QueryFamily::V4]
            .map(|family| self.caches[family as usize].resolved(name));
        if let (Some(v6), Some(v4)) = (v6, v4) {
            return [&v6[..], &v4[..]].concat();
        }
        let _permit = lookup_limiter.acquire().await;
        self.look_up(name).await
    }

    async fn look_up(&self, name: &DomainName) -> Vec<IpAddr> {
        let [v6, v4] =
            [QueryFamily::V6, QueryFamily::V4].map(|family| self.cache_entry(name, family));
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

    /// Waits for the second family, only briefly if addresses are already known. `since` is the age
    /// of its query.
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
            let addresses =
                found.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
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

/// The name for a query, label by label and unchanged: the library's text parser rejects some names
/// that are in use. It is fully qualified and never completed by a search domain.
fn fully_qualified(name: &DomainName) -> Result<rr::Name, ProtoError> {
    rr::Name::from_labels(name.as_str().split('.').map(str::as_bytes))
}

/// How long a missing answer is cached.
fn failure_ttl(error: &NetError, family: QueryFamily) -> Duration {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { negative_ttl, .. })) => {
            let [min, max] = NEGATIVE_TTL;
            negative_ttl.map_or(min, |ttl| Duration::from_secs(ttl.into()).clamp(min, max))
        }
        _ => FAILURE_TTL[family as usize],
    }
}

/// The servers of resolv.conf(5). By its definition, the host's own server is used if it names
/// none.
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
    // Some servers refuse EDNS, and some firewalls drop it. Without it, answers longer than 512
    // bytes come over TCP. The resolver of glibc behaves the same by default.
    options.edns0 = false;
    // The answers are cached in `DnsCache`.
    options.cache_size = 0;
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Mutex};

    use hickory_resolver::proto::{
        op::{Message, MessageType, ResponseCode},
        rr::{RData, Record, RecordType, rdata},
    };
    use tokio::{net::UdpSocket, task::JoinSet, time::sleep};

    use super::*;
    use crate::proxy::lookup_limiter::MAX_CONCURRENT_LOOKUPS;

    /// The behavior of a DNS server that only has IPv4 addresses.
    #[derive(Clone, Copy, Default)]
    struct FakeDnsBehavior {
        silent_about_v6: bool,
        /// The response code to queries with EDNS. `Some(None)` means no answer.
        edns: Option<Option<ResponseCode>>,
        /// The delay of each answer.
        late: Duration,
    }

    /// Starts a DNS server. The list contains the queries it received.
    async fn spawn_dns_server(behavior: FakeDnsBehavior) -> (DnsResolver, Arc<Mutex<Vec<String>>>) {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let queries = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&queries);
        tokio::spawn(async move {
            let mut bytes = [0; 1500];
            while let Ok((count, peer)) = socket.recv_from(&mut bytes).await {
                let message = Message::from_vec(&bytes[..count]).unwrap();
                let question = &message.queries[0];
                log.lock().unwrap().push(format!("{} {}", question.query_type(), question.name()));
                let Some(answer) = fake_response(message, behavior) else { continue };
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    sleep(behavior.late).await;
                    socket.send_to(&answer.to_vec().unwrap(), peer).await
                });
            }
        });
        (DnsResolver::new(&[address]).unwrap(), queries)
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
            _ if question.name().to_ascii().ends_with(".silent.example.") => return None,
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

    fn query_count(queries: &Mutex<Vec<String>>, text: &str) -> usize {
        queries.lock().unwrap().iter().filter(|query| *query == text).count()
    }

    /// Resolves a name for a sandbox without other lookups.
    async fn resolve(resolver: &DnsResolver, name: &DomainName) -> Vec<IpAddr> {
        resolver.resolve(name, &LookupLimiter::default()).await
    }

    const FOUND: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))];

    #[tokio::test]
    async fn one_family_is_enough_and_answers_are_cached() {
        let good = DomainName::parse("good.example").unwrap();
        for silent_about_v6 in [false, true] {
            let (resolver, queries) =
                spawn_dns_server(FakeDnsBehavior { silent_about_v6, ..FakeDnsBehavior::default() })
                    .await;
            for _ in 0..3 {
                let start = Instant::now();
                assert_eq!(resolve(&resolver, &good).await, FOUND);
                assert!(start.elapsed() < QUERY_TIMEOUT, "no server is waited for in vain");
            }
            assert_eq!(query_count(&queries, "A good.example."), 1, "{queries:?}");
            let expected = if silent_about_v6 { 1..=4 } else { 1..=1 };
            let about_v6 = query_count(&queries, "AAAA good.example.");
            assert!(expected.contains(&about_v6), "no records, and no SOA: {queries:?}");
        }
    }

    #[tokio::test]
    async fn concurrent_lookups_send_one_query() {
        let (resolver, queries) = spawn_dns_server(FakeDnsBehavior::default()).await;
        let (resolver, mut waiting) = (Arc::new(resolver), JoinSet::new());
        for _ in 0..50 {
            let resolver = Arc::clone(&resolver);
            waiting.spawn(async move {
                resolve(&resolver, &DomainName::parse("good.example").unwrap()).await.len()
            });
        }
        assert_eq!(waiting.join_all().await, [1; 50]);
        assert_eq!(queries.lock().unwrap().len(), 2, "{queries:?}");
    }

    #[tokio::test]
    async fn the_hosts_file_and_search_domains_do_not_count() {
        let (resolver, queries) = spawn_dns_server(FakeDnsBehavior::default()).await;
        let name = DomainName::parse("unknown.example").unwrap();
        for _ in 0..3 {
            assert_eq!(resolve(&resolver, &name).await, [] as [IpAddr; 0]);
        }
        let mut queries = queries.lock().unwrap().clone();
        queries.sort();
        assert_eq!(queries, ["A unknown.example.", "AAAA unknown.example."]);
    }

    #[tokio::test]
    async fn a_flood_of_names_waits_for_its_turn_and_delays_no_other_sandbox() {
        let (resolver, queries) = spawn_dns_server(FakeDnsBehavior::default()).await;
        let (resolver, flooding) = (Arc::new(resolver), Arc::new(LookupLimiter::default()));
        let mut flood = JoinSet::new();
        for number in 0..1000 {
            let (resolver, flooding) = (Arc::clone(&resolver), Arc::clone(&flooding));
            let name = DomainName::parse(&format!("n{number}.silent.example")).unwrap();
            flood.spawn(async move { resolver.resolve(&name, &flooding).await });
        }
        while flooding.available() > 0 {
            tokio::task::yield_now().await;
        }
        let good = DomainName::parse("good.example").unwrap();
        assert_eq!(resolve(&resolver, &good).await, FOUND);
        let queried: HashSet<String> = queries.lock().unwrap().iter().cloned().collect();
        let of_flood = queried.iter().filter(|query| query.ends_with(".silent.example.")).count();
        assert!(of_flood <= 2 * MAX_CONCURRENT_LOOKUPS, "{of_flood}");
        flood.shutdown().await;
        assert_eq!(flooding.available(), MAX_CONCURRENT_LOOKUPS, "all permits are free again");
    }

    #[tokio::test]
    async fn servers_without_edns_will_do() {
        let good = DomainName::parse("good.example").unwrap();
        for code in [Some(ResponseCode::FormErr), Some(ResponseCode::NotImp), None] {
            let (resolver, queries) = spawn_dns_server(FakeDnsBehavior {
                edns: Some(code),
                ..FakeDnsBehavior::default()
            })
            .await;
            assert_eq!(resolve(&resolver, &good).await, FOUND, "{code:?}: {queries:?}");
        }
    }

    #[tokio::test]
    async fn late_answers_count() {
        let late = Duration::from_millis(3500);
        let (resolver, _) =
            spawn_dns_server(FakeDnsBehavior { late, ..FakeDnsBehavior::default() }).await;
        let good = DomainName::parse("good.example").unwrap();
        assert_eq!(resolve(&resolver, &good).await, FOUND);
    }

    #[tokio::test]
    async fn odd_names_are_queried_as_they_are() {
        let (resolver, queries) = spawn_dns_server(FakeDnsBehavior::default()).await;
        for name in ["my_bucket.s3.example", "-a.example", "a-.b-.example", "_x.example"] {
            assert_eq!(
                resolve(&resolver, &DomainName::parse_requested(name).unwrap()).await,
                FOUND,
                "{name}"
            );
            let received = queries.lock().unwrap().clone();
            assert!(
                received.iter().any(|query| query.contains(name.trim_start_matches('-'))),
                "{received:?}"
            );
        }
    }
}
