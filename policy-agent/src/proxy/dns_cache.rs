//! What DNS has answered about names: kept as long as it holds, and asked for once, however many
//! connections wait for it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use crate::policy::DomainName;

/// Names that are remembered, of each family. A sandbox that may ask for any name can ask for new
/// ones for ever.
const MAX_CACHED_NAMES: usize = 8192;

/// The addresses of a name, of one family.
pub type CachedAddresses = Arc<[IpAddr]>;

/// An answer, be it that there is none.
#[derive(Clone, Debug)]
pub struct DnsAnswer {
    /// The addresses.
    pub addresses: CachedAddresses,
    /// Until when it holds.
    pub valid_until: Instant,
}

/// A question, and its answer once that is there.
#[derive(Debug)]
pub struct DnsCacheEntry {
    queried_at: Instant,
    answer: OnceCell<DnsAnswer>,
}

impl DnsCacheEntry {
    fn new() -> Arc<Self> {
        Arc::new(Self { queried_at: Instant::now(), answer: OnceCell::new() })
    }

    /// The answer that is there.
    pub fn resolved(&self) -> Option<CachedAddresses> {
        self.answer.get().map(|answer| Arc::clone(&answer.addresses))
    }

    /// The answer; one of those who wait for it asks.
    pub async fn get_or_resolve(
        &self,
        resolve: impl Future<Output = DnsAnswer>,
    ) -> CachedAddresses {
        Arc::clone(&self.answer.get_or_init(|| resolve).await.addresses)
    }

    /// How long ago somebody began to ask.
    pub fn age(&self) -> Duration {
        self.queried_at.elapsed()
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.answer.get().is_none_or(|answer| answer.valid_until > now)
    }
}

/// The answers about one family.
#[derive(Debug, Default)]
pub struct DnsCache(Mutex<HashMap<DomainName, Arc<DnsCacheEntry>>>);

impl DnsCache {
    /// The question for a name: one that holds or is being asked, or a new one.
    pub fn entry(&self, name: &DomainName) -> Arc<DnsCacheEntry> {
        let (mut entries, now) = (self.lock(), Instant::now());
        if let Some(known) = entries.get(name).filter(|known| known.is_fresh(now)) {
            return Arc::clone(known);
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

/// Forgets what does not hold any more; if that is little, half of the rest, whichever: a map that
/// is full of what one sandbox asks for must not be searched at each of its questions.
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

    fn answer(held: Duration) -> DnsAnswer {
        DnsAnswer {
            addresses: [IpAddr::from([192, 0, 2, 7])].into(),
            valid_until: Instant::now() + held,
        }
    }

    #[tokio::test]
    async fn concurrent_lookups_share_one_query() {
        let (answers, asked) = (Arc::new(DnsCache::default()), Arc::new(AtomicUsize::new(0)));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
            waiting.spawn(async move {
                let resolve = async {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    answer(Duration::from_secs(60))
                };
                answers.entry(&name("a.example")).get_or_resolve(resolve).await.len()
            });
        }
        assert_eq!(waiting.join_all().await, [1; 100]);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_cancelled_lookup_is_taken_over_by_the_next() {
        let question = DnsCache::default().entry(&name("a.example"));
        let mut first = Box::pin(question.get_or_resolve(std::future::pending()));
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(first);
        let answered = question.get_or_resolve(async { answer(Duration::from_secs(60)) }).await;
        assert_eq!(answered.len(), 1);
    }

    #[tokio::test]
    async fn expired_answers_are_queried_again() {
        let answers = DnsCache::default();
        let first = answers.entry(&name("a.example"));
        first.get_or_resolve(async { answer(Duration::ZERO) }).await;
        let second = answers.entry(&name("a.example"));
        assert!(second.resolved().is_none());
        second.get_or_resolve(async { answer(Duration::from_secs(60)) }).await;
        assert!(answers.entry(&name("a.example")).resolved().is_some());
        assert!(answers.entry(&name("b.example")).resolved().is_none());
    }

    #[test]
    fn the_cache_is_bounded() {
        let answers = DnsCache::default();
        for number in 0..3 * MAX_CACHED_NAMES {
            answers.entry(&name(&format!("n{number}.example")));
            assert!(answers.lock().len() <= MAX_CACHED_NAMES);
        }
    }
}
