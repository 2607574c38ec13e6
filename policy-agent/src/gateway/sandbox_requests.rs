//! Counts requests to public URLs by sandbox, for the metrics.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use hyper::StatusCode;
use policy_common::endpoint::MAX_SANDBOXES;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use crate::agent::Sandbox;

/// Maximum number of names between two scrapes.
const MAX_COUNTED_NAMES: usize = 2 * MAX_SANDBOXES as usize;

/// Labels of the request counter of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SandboxStatusLabels {
    sandbox: String,
    /// The first digit of the status: `2xx`.
    class: &'static str,
}

/// Requests by the name of a sandbox and the class of their status. Clones share the counts.
///
/// Clients choose the names. Those without a sandbox are dropped at every scrape, and their number
/// is bounded in between.
#[derive(Clone, Debug, Default)]
pub struct SandboxRequests(Arc<Mutex<HashMap<String, BTreeMap<&'static str, u64>>>>);

impl SandboxRequests {
    /// Counts a request for this name.
    pub(super) fn count(&self, name: &str, status: u16) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(classes) = counted.get_mut(name) {
            *classes.entry(status_class(status)).or_default() += 1;
        } else if counted.len() < MAX_COUNTED_NAMES {
            counted.insert(name.to_owned(), BTreeMap::from([(status_class(status), 1)]));
        }
    }

    /// The counts of these sandboxes. Forgets all others.
    #[must_use]
    pub fn collect(&self, sandboxes: &[Arc<Sandbox>]) -> Family<SandboxStatusLabels, Counter> {
        let family = Family::<SandboxStatusLabels, Counter>::default();
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = HashMap::with_capacity(sandboxes.len());
        for sandbox in sandboxes {
            let Some((name, classes)) = counted.remove_entry(sandbox.id().as_str()) else {
                continue;
            };
            for (class, count) in &classes {
                let labels = SandboxStatusLabels { sandbox: name.clone(), class };
                family.get_or_create(&labels).inc_by(*count);
            }
            kept.insert(name, classes);
        }
        *counted = kept;
        family
    }
}

/// The first digit of a status, as a label.
fn status_class(status: u16) -> &'static str {
    match StatusCode::from_u16(status) {
        Ok(status) if status.is_informational() => "1xx",
        Ok(status) if status.is_success() => "2xx",
        Ok(status) if status.is_redirection() => "3xx",
        Ok(status) if status.is_client_error() => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_clients_invent_are_bounded_and_forgotten() {
        let requests = SandboxRequests::default();
        for number in 0..3 * MAX_COUNTED_NAMES {
            requests.count(&format!("invented{number}"), 502);
        }
        assert_eq!(requests.0.lock().expect("no panic").len(), MAX_COUNTED_NAMES);
        drop(requests.collect(&[]));
        assert!(requests.0.lock().expect("no panic").is_empty());
        requests.count("web", 200);
        requests.count("web", 499);
        let counted = requests.0.lock().expect("no panic")["web"].clone();
        assert_eq!(counted, BTreeMap::from([("2xx", 1), ("4xx", 1)]));
    }
}
