//! Sandboxes that are waited for while they are being created.

use std::{sync::Arc, time::Duration};

use super::{TestMachine, sandbox_spec};

/// Longer than any test takes.
const LIMIT: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_sandbox_that_is_being_created_is_waited_for() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let registry = Arc::clone(&reconciler.registry);
    let spec = sandbox_spec("a", "tap0", "10.11.0.2", "1.1.1.1");
    let (id, notice) = (spec.sandbox_id.clone(), registry.announce(vec![spec.sandbox_id.clone()]));
    let waiting = registry.get_or_await(&id, LIMIT);
    let creating = async {
        tokio::task::yield_now().await;
        reconciler.apply(vec![spec]).expect("applied");
    };
    let (found, ()) = tokio::join!(waiting, creating);
    assert_eq!(found.expect("a sandbox").id(), &id);
    drop(notice);
}

#[tokio::test]
async fn a_sandbox_that_is_not_created_after_all_is_not_waited_for() {
    let machine = TestMachine::new();
    let registry = Arc::clone(&machine.start_reconciler().registry);
    let id = "a".parse().expect("an ID");
    assert!(registry.get_or_await(&id, LIMIT).await.is_none(), "nobody creates it");
    let (first, second) =
        (registry.announce(vec![id.clone()]), registry.announce(vec![id.clone()]));
    let failing = async {
        drop(first);
        tokio::task::yield_now().await;
        drop(second);
    };
    let (found, ()) = tokio::join!(registry.get_or_await(&id, LIMIT), failing);
    assert!(found.is_none());
    let _notice = registry.announce(vec![id.clone()]);
    assert!(registry.get_or_await(&id, Duration::ZERO).await.is_none(), "the time is over");
}
