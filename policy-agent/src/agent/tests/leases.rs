//! Sandboxes that end by themselves, and creations that are repeated.

use super::{
    berths::{machine, wish},
    *,
};

fn lasting(timeout: Duration) -> Wish {
    Wish { timeout, ..wish("1.1.1.1") }
}

fn keyed(key: &str, denied: &str) -> Wish {
    Wish { idempotency_key: Some(key.to_owned()), ..wish(denied) }
}

#[test]
fn a_sandbox_ends_when_its_time_is_over_and_not_before() {
    let machine = machine(&["tap0", "tap1"]);
    let mut agent = machine.agent();
    let over = agent.create(lasting(Duration::ZERO)).expect("created");
    let other = agent.create(lasting(Duration::from_secs(60))).expect("created");
    assert_eq!(agent.end_overdue(), 0);
    assert!(over.life.ended().is_cancelled() && !other.life.ended().is_cancelled());
    assert!(agent.table.get(over.id()).is_none() && agent.table.get(other.id()).is_some());
    assert_eq!(machine.on_disk().len(), 1);
}

#[test]
fn what_cannot_be_ended_is_tried_again() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    let sandbox = agent.create(lasting(Duration::ZERO)).expect("created");
    machine.fails("attach");
    assert_eq!(agent.end_overdue(), 1);
    assert!(agent.table.get(sandbox.id()).is_some());
    machine.works();
    assert_eq!(agent.end_overdue(), 0);
    assert!(agent.table.is_empty());
}

#[test]
fn an_agent_that_was_away_ends_it_at_the_start() {
    let machine = machine(&["tap0"]);
    machine.agent().create(lasting(Duration::from_millis(1))).expect("created");
    while machine.entries()[0].life.lease.as_ref().expect("a lease").ends > Timestamp::now() {
        std::thread::yield_now();
    }
    let agent = machine.agent();
    assert!(agent.table.is_empty() && machine.on_disk().is_empty());
    assert!(machine.kernel.memory().published.is_empty(), "its interface is shut");
}

#[test]
fn a_renewed_lease_ends_from_now_for_the_next_agent_too() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    let created = agent.create(lasting(Duration::ZERO)).expect("created");
    let renewed = agent.renew(created.id().as_str(), Duration::from_secs(60)).expect("renewed");
    assert_eq!(agent.end_overdue(), 0);
    let ends = renewed.life.ends().expect("a lease");
    assert!(ends > Timestamp::now());
    drop(agent);
    let again = machine.agent().table.get(created.id()).expect("known");
    assert_eq!(again.life.ends(), Some(ends));
    assert_eq!(again.life.origin(), created.life.origin());
    assert_eq!(again.life.started(), created.life.started());
}

#[test]
fn what_is_applied_has_no_lease_and_renewing_gives_it_none() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let renewed = agent.renew("web", Duration::ZERO).expect("known");
    assert_eq!((renewed.life.ends(), renewed.life.origin()), (None, None));
    assert_eq!(agent.end_overdue(), 0);
    assert!(agent.table.find("web").is_some());
    let unknown = agent.renew("nobody", Duration::ZERO);
    assert!(matches!(unknown, Err(Error::Unknown(_))));
    let for_ever = agent.renew("web", Duration::MAX);
    assert!(matches!(for_ever, Err(Error::Invalid { .. })));
}

#[test]
fn changes_keep_a_life() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    let created = agent.create(wish("1.1.1.1")).expect("created");
    let mut spec = created.spec();
    spec.network = update(r#"{"denyOut":["2.2.2.2"]}"#);
    apply(&mut agent, spec.clone()).expect("applied");
    spec.addresses = vec![[10, 11, 0, 99].into()];
    apply(&mut agent, spec).expect("applied, in another slot");
    let id = created.id().as_str();
    agent.update_network(id, &update(r#"{"denyOut":["3.3.3.3"]}"#)).expect("updated");
    let now = agent.table.find(id).expect("known");
    assert!(Arc::ptr_eq(&now.life, &created.life));
    assert_eq!(machine.entries()[0].life, created.life.kept());
    assert!(machine.entries()[0].life.lease.is_some());
}

#[test]
fn a_repeated_creation_is_the_same_one() {
    let machine = machine(&["tap0", "tap1"]);
    let mut agent = machine.agent();
    let created = agent.create(keyed("k", "1.1.1.1")).expect("created");
    let id = created.id().as_str();
    agent.update_network(id, &update(r#"{"denyOut":["3.3.3.3"]}"#)).expect("updated");
    let again = agent.create(keyed("k", "1.1.1.1")).expect("the same");
    assert_eq!(again.id(), created.id());
    let reused = agent.create(keyed("k", "2.2.2.2")).expect_err("another wish");
    assert!(matches!(&reused, Error::KeyReused(owner) if owner == created.id()), "{reused}");
    let wrong = agent.create(keyed("k", "example.com")).expect_err("a wrong wish");
    assert!(matches!(wrong, Error::Invalid { .. }), "{wrong}");
    drop(agent);
    let mut agent = machine.agent();
    let again = agent.create(keyed("k", "1.1.1.1")).expect("the next agent knows");
    assert_eq!(again.id(), created.id());
    let other = agent.create(keyed("other", "1.1.1.1")).expect("another key");
    assert_ne!(other.id(), created.id());
    agent.delete(created.id().as_str()).expect("deleted");
    let new = agent.create(keyed("k", "2.2.2.2")).expect("the key is free again");
    assert_ne!(new.id(), created.id());
}

#[test]
fn a_key_does_not_show_on_disk_and_a_password_tells_wishes_apart() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    let with = |password: &str| Wish {
        network: update(&format!(
            r#"{{"egressProxy":{{"address":"203.0.113.7:1080","username":"u",
            "password":"{password}"}}}}"#
        )),
        ..keyed("do-not-show", "1.1.1.1")
    };
    let created = agent.create(with("one")).expect("created");
    let file = machine.disk.path().join(format!("sandboxes/{}.json", created.id()));
    assert!(!std::fs::read_to_string(file).expect("the file").contains("do-not-show"));
    assert_eq!(agent.create(with("one")).expect("the same").id(), created.id());
    assert!(matches!(agent.create(with("other")), Err(Error::KeyReused(_))));
}

/// An agent as the API has it, with its clock.
fn started(machine: &Machine) -> Agent {
    let store = Store::open(machine.disk.path()).expect("a store");
    let law = Law { floor: Floor::default(), defaults: Defaults::default() };
    let (kernel, egress) = (machine.kernel.clone(), machine.kernel.clone());
    let (law, ledger, berths) = (Arc::new(law), Arc::default(), machine.berths.to_vec());
    Agent::start(kernel, egress, store, law, ledger, berths).expect("started")
}

#[tokio::test]
async fn concurrent_creations_with_one_key_make_one_sandbox() {
    let machine = machine(&["tap0", "tap1"]);
    let agent = started(&machine);
    let creations = (0..8).map(|_| agent.create(keyed("k", "1.1.1.1")));
    let created = futures_util::future::try_join_all(creations).await.expect("created");
    assert!(created.iter().all(|sandbox| sandbox.id() == created[0].id()));
    assert_eq!(agent.table().len(), 1);
}

#[tokio::test]
async fn leases_end_by_the_clock_also_when_they_change() {
    let machine = machine(&["tap0", "tap1"]);
    let agent = started(&machine);
    let clock = agent.clone();
    let clock = tokio::spawn(async move { clock.end_leases().await });
    let long = agent.create(lasting(Duration::from_secs(600))).await.expect("created");
    let soon = agent.create(lasting(Duration::from_millis(20))).await.expect("created");
    let patience = Duration::from_secs(10);
    let ended = tokio::time::timeout(patience, soon.life.ended().cancelled()).await;
    ended.expect("the second lease is over before the first");
    agent.renew(long.id().as_str(), Duration::from_millis(20)).await.expect("renewed");
    let ended = tokio::time::timeout(patience, long.life.ended().cancelled()).await;
    ended.expect("a lease that was made shorter is over");
    clock.abort();
}
