//! Publishing many policies: equal ones once, the others side by side, since the kernel makes each
//! wait for a grace period.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Result, anyhow};

use super::{change::Change, kernel::Kernel, ledger::Ledger};
use crate::dataplane::{PolicyId, Slot};

/// Grace periods that are waited for at the same time.
const AT_ONCE: usize = 32;

type Digest = [u8; 16];
type Outcome = Result<PolicyId>;

/// Publishes the policies of all changes. On an error, the old policies of the sandboxes that it
/// concerns stay in force.
pub fn all(kernel: &dyn Kernel, ledger: &Ledger, changes: Vec<Change>) -> Vec<(Change, Outcome)> {
    let mut groups = HashMap::<Digest, Vec<Change>>::new();
    for change in changes {
        groups.entry(change.sandbox.rules.digest).or_default().push(change);
    }
    let groups: Vec<Vec<Change>> = groups.into_values().collect();
    ledger.publish(|notes| {
        let published = side_by_side(&groups, |group| publish(kernel, group));
        let mut outcomes = Vec::new();
        for (group, result) in groups.into_iter().zip(published) {
            let problem = result.as_ref().err().map(|error| format!("{error:#}"));
            for change in group {
                let outcome = match (&result, &problem) {
                    (Ok(policy), _) => Ok(*policy),
                    (Err(_), problem) => Err(anyhow!(problem.clone().unwrap_or_default())),
                };
                if let Ok(policy) = &outcome {
                    notes.note(change.sandbox.slot, *policy, &change.sandbox.rules);
                }
                outcomes.push((change, outcome));
            }
        }
        outcomes
    })
}

/// Publishes one policy in the slots that do not have it yet.
fn publish(kernel: &dyn Kernel, group: &[Change]) -> Outcome {
    let Some(first) = group.first() else { return Err(anyhow!("nothing to publish")) };
    let mut policy = None;
    let mut slots = Vec::<Slot>::new();
    for change in group {
        let slot = change.sandbox.slot;
        match kernel.published(slot)? {
            Some(published) if published.digest == change.sandbox.rules.digest => {
                policy = Some(published.policy);
            }
            _ => slots.push(slot),
        }
    }
    match policy {
        Some(policy) if slots.is_empty() => Ok(policy),
        _ => kernel.publish(&slots, &first.compiled),
    }
}

/// Does `work` on every item, several at a time; the results are in the items' order.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if let [only] = items {
        return vec![work(only)];
    }
    let next = Mutex::new(items.iter().enumerate());
    let turn = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut results = thread::scope(|scope| {
        let worker = || std::iter::from_fn(&turn).map(|(at, item)| (at, work(item))).collect();
        let workers = (0..items.len().min(AT_ONCE)).map(|_| scope.spawn(worker));
        let workers: Vec<thread::ScopedJoinHandle<'_, Vec<(usize, R)>>> = workers.collect();
        workers.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
