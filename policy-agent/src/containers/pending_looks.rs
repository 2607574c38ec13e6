//! The sandboxes whose containers are to be looked at: soon after an event, and again until it is
//! clear where the container is.

use std::{collections::BTreeMap, future, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::policy::SandboxId;

/// How often, and after which time each, an interface is looked for that is about to appear.
pub(super) const QUICK_LOOKS: usize = 100;
const QUICK_DELAY: Duration = Duration::from_millis(10);
/// The time until a container is looked at again of which it is unclear where it is.
const SLOW_DELAY: Duration = Duration::from_secs(1);

/// One look at the container of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The sandbox.
    pub(super) id: SandboxId,
    /// How many quick looks are left after this one.
    pub(super) quick_left: usize,
}

/// The looks that are to come, at most one for each sandbox.
#[derive(Debug, Default)]
pub(super) struct PendingLooks(BTreeMap<SandboxId, (Instant, usize)>);

impl PendingLooks {
    /// Adds a look that is due now.
    pub(super) fn add(&mut self, look: Look) {
        let (due, quick_left) = self.0.entry(look.id).or_insert_with(|| (Instant::now(), 0));
        (*due, *quick_left) = (Instant::now(), look.quick_left.max(*quick_left));
    }

    /// Adds the look that follows this one.
    pub(super) fn look_again(&mut self, look: Look) {
        let delay = if look.quick_left > 0 { QUICK_DELAY } else { SLOW_DELAY };
        self.0.insert(look.id, (Instant::now() + delay, look.quick_left.saturating_sub(1)));
    }

    /// Removes the looks that are due.
    pub(super) fn take_due(&mut self) -> Vec<Look> {
        let now = Instant::now();
        let due = self.0.extract_if(.., |_, (due, _)| *due <= now);
        due.map(|(id, (_, quick_left))| Look { id, quick_left }).collect()
    }

    /// Waits until a look is due. Forever if there is none.
    pub(super) async fn wait(&self) {
        match self.0.values().map(|(due, _)| *due).min() {
            Some(due) => sleep_until(due).await,
            None => future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(quick_left: usize) -> Look {
        Look { id: "web".parse().expect("an ID"), quick_left }
    }

    #[tokio::test]
    async fn a_container_is_looked_at_again_soon_and_then_each_second() {
        let mut pending = PendingLooks::default();
        pending.add(look(1));
        assert_eq!(pending.take_due(), [look(1)]);
        for (taken, delay, following) in
            [(look(1), QUICK_DELAY, look(0)), (look(0), SLOW_DELAY, look(0))]
        {
            let start = Instant::now();
            pending.look_again(taken);
            assert_eq!(pending.take_due(), []);
            pending.wait().await;
            assert!(start.elapsed() >= delay);
            assert_eq!(pending.take_due(), [following]);
        }
    }

    #[test]
    fn a_sandbox_has_one_look_to_come() {
        let mut pending = PendingLooks::default();
        pending.look_again(look(0));
        pending.add(look(QUICK_LOOKS));
        pending.add(look(0));
        assert_eq!(pending.take_due(), [look(QUICK_LOOKS)]);
        assert_eq!(pending.take_due(), []);
    }
}
