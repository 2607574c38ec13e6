//! Caches DNS answers for as long as they are valid. Concurrent lookups of a name share one query.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use crate::policy::DomainName;

/// Maximum number of cached names per family. A sandbox that may request any name can request new
/// ones without end.
const MAX_CACHED_NAMES: usize = 8192;

/// The addresses of a name, of one family.
pub(super) type CachedAddresses = Arc<[IpAddr]>;

/// A DNS answer, possibly negative.
#[derive(Clone, Debug)]
pub(super) struct DnsAnswer {
    /// The addresses. Empty if there are none.
    pub addresses: CachedAddresses,
    /// When the answer expires.
    pub valid_until: Instant,
}

/// A query, and its answer once it has arrived.
#[derive(Debug)]
pub(super) struct DnsCacheEntry {
    queried_at: Instant,
    answer: OnceCell<DnsAnswer>,
}

impl DnsCacheEntry {
    fn new() -> Arc<Self> {
        Arc::new(Self { queried_at: Instant::now(), answer: OnceCell::new() })
    }

    /// The answer, if it has arrived.
    pub(super) fn resolved(&self) -> Option<CachedAddresses> {
        self.answer.get().map(|answer| Arc::clone(&answer.addresses))
    }

    /// The answer. One of the concurrent callers runs `resolve`, the others wait for its result.
    pub(super) async fn get_or_resolve(
        &self,
        resolve: impl Future<Output = DnsAnswer>,
    ) -> CachedAddresses {
        Arc::clone(&self.answer.get_or_init(|| resolve).await.addresses)
    }

    /// Time since the query was started.
    pub(super) fn age(&self) -> Duration {
        self.queried_at.elapsed()
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.answer.get().is_none_or(|answer| answer.valid_until > now)
    }
}

/// The cached answers of one family.
#[derive(Debug, Default)]
pub(super) struct DnsCache(Mutex<HashMap<DomainName, Arc<DnsCacheEntry>>>);

impl DnsCache {
    /// The addresses of a name, if a current answer is cached.
    pub(super) fn resolved(&self, name: &DomainName) -> Option<CachedAddresses> {
        let (entries, now) = (self.lock(), Instant::now());
        entries.get(name).filter(|cached| cached.is_fresh(now))?.resolved()
    }

    /// The entry of a name: a current one, whether pending or answered, or a new one.
    pub(super) fn entry(&self, name: &DomainName) -> Arc<DnsCacheEntry> {
        let (mut entries, now) = (self.lock(), Instant::now());
        if let Some(cached) = entries.get(name).filter(|cached| cached.is_fresh(now)) {
            return Arc::clone(cached);
        }
        if entries.len() >= MAX_CACHED_NAMES {
            evict(&mut entries, now);
        }
        let entry = DnsCacheEntry::new();
        entries.insert(name.clone(), Arc::clone(&entry));
        entry
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DomainName, Arc<DnsCacheEntry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes expired entries. If more than half of the limit remains, it also removes every second
/// entry: a map that one sandbox keeps full must not be scanned on each of its lookups.
fn evict(entries: &mut HashMap<DomainName, Arc<DnsCacheEntry>>, now: Instant) {
    entries.retain(|_, entry| entry.is_fresh(now));
    let mut index = 0;
    if entries.len() > MAX_CACHED_NAMES / 2 {
        entries.retain(|_, _| {
            index += 1;
            index % 2 == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).expect(text)
    }

    fn answer(ttl: Duration) -> DnsAnswer {
        DnsAnswer {
            addresses: [IpAddr::from([192, 0, 2, 7])].into(),
            valid_until: Instant::now() + ttl,
        }
    }

    #[tokio::test]
    async fn concurrent_lookups_share_one_query() {
        let (cache, query_count) = (Arc::new(DnsCache::default()), Arc::new(AtomicUsize::new(0)));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (cache, query_count) = (Arc::clone(&cache), Arc::clone(&query_count));
            waiting.spawn(async move {
                let resolve = async {
                    query_count.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    answer(Duration::from_secs(60))
                };
                cache.entry(&name("a.example")).get_or_resolve(resolve).await.len()
            });
        }
        assert_eq!(waiting.join_all().await, [1; 100]);
        assert_eq!(query_count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_cancelled_lookup_is_taken_over_by_the_next() {
        let entry = DnsCache::default().entry(&name("a.example"));
        let mut first = Box::pin(entry.get_or_resolve(std::future::pending()));
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(first);
        let answered = entry.get_or_resolve(async { answer(Duration::from_secs(60)) }).await;
        assert_eq!(answered.len(), 1);
    }

    #[tokio::test]
    async fn expired_answers_are_queried_again() {
        let cache = DnsCache::default();
        let first = cache.entry(&name("a.example"));
        first.get_or_resolve(async { answer(Duration::ZERO) }).await;
        let second = cache.entry(&name("a.example"));
        assert!(second.resolved().is_none());
        second.get_or_resolve(async { answer(Duration::from_secs(60)) }).await;
        assert!(cache.entry(&name("a.example")).resolved().is_some());
        assert!(cache.entry(&name("b.example")).resolved().is_none());
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = DnsCache::default();
        for number in 0..3 * MAX_CACHED_NAMES {
            cache.entry(&name(&format!("n{number}.example")));
            assert!(cache.lock().len() <= MAX_CACHED_NAMES);
        }
    }
}
