//! Sandboxes that end with their lease, and repeated creations.

use super::{
    interface_pool::{create_request, machine_with_pool},
    *,
};

fn request_with_timeout(timeout: Duration) -> CreateRequest {
    CreateRequest { timeout, ..create_request("1.1.1.1") }
}

fn request_with_key(key: &str, denied: &str) -> CreateRequest {
    CreateRequest { idempotency_key: Some(key.to_owned()), ..create_request(denied) }
}

#[test]
fn a_sandbox_ends_when_its_time_is_over_and_not_before() {
    let machine = machine_with_pool(&["tap0", "tap1"]);
    let mut reconciler = machine.start_reconciler();
    let expired = reconciler.create(request_with_timeout(Duration::ZERO)).expect("created");
    let other = reconciler.create(request_with_timeout(Duration::from_secs(60))).expect("created");
    assert_eq!(reconciler.delete_expired(), 0);
    assert!(
        expired.lifetime.cancellation().is_cancelled()
            && !other.lifetime.cancellation().is_cancelled()
    );
    assert!(
        reconciler.registry.get(expired.id()).is_none()
            && reconciler.registry.get(other.id()).is_some()
    );
    assert_eq!(machine.persisted_specs().len(), 1);
}

#[test]
fn what_cannot_be_ended_is_tried_again() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    let sandbox = reconciler.create(request_with_timeout(Duration::ZERO)).expect("created");
    machine.fail_call("attach");
    assert_eq!(reconciler.delete_expired(), 1);
    assert!(reconciler.registry.get(sandbox.id()).is_some());
    machine.fail_nothing();
    assert_eq!(reconciler.delete_expired(), 0);
    assert!(reconciler.registry.is_empty());
}

#[test]
fn an_agent_that_was_away_ends_it_at_the_start() {
    let machine = machine_with_pool(&["tap0"]);
    machine
        .start_reconciler()
        .create(request_with_timeout(Duration::from_millis(1)))
        .expect("created");
    while machine.persisted_records()[0].lifetime.lease.as_ref().expect("a lease").ends_at
        > Timestamp::now()
    {
        std::thread::yield_now();
    }
    let reconciler = machine.start_reconciler();
    assert!(reconciler.registry.is_empty() && machine.persisted_specs().is_empty());
    assert!(machine.dataplane.state().published.is_empty(), "its interface is shut");
}

#[test]
fn a_renewed_lease_ends_from_now_for_the_next_agent_too() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    let created = reconciler.create(request_with_timeout(Duration::ZERO)).expect("created");
    let renewed =
        reconciler.renew_lease(created.id().as_str(), Duration::from_secs(60)).expect("renewed");
    assert_eq!(reconciler.delete_expired(), 0);
    let ends = renewed.lifetime.ends_at().expect("a lease");
    assert!(ends > Timestamp::now());
    drop(reconciler);
    let again = machine.start_reconciler().registry.get(created.id()).expect("known");
    assert_eq!(again.lifetime.ends_at(), Some(ends));
    assert_eq!(again.lifetime.metadata(), created.lifetime.metadata());
    assert_eq!(again.lifetime.started_at(), created.lifetime.started_at());
}

#[test]
fn what_is_applied_has_no_lease_and_renewing_gives_it_none() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let renewed = reconciler.renew_lease("web", Duration::ZERO).expect("known");
    assert_eq!((renewed.lifetime.ends_at(), renewed.lifetime.metadata()), (None, None));
    assert_eq!(reconciler.delete_expired(), 0);
    assert!(reconciler.registry.find("web").is_some());
    let unknown = reconciler.renew_lease("nobody", Duration::ZERO);
    assert!(matches!(unknown, Err(AgentError::UnknownSandbox(_))));
    let for_ever = reconciler.renew_lease("web", Duration::MAX);
    assert!(matches!(for_ever, Err(AgentError::Invalid { .. })));
}

#[test]
fn changes_keep_the_lifetime() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    let created = reconciler.create(create_request("1.1.1.1")).expect("created");
    let mut spec = created.spec();
    spec.network = network_update(r#"{"denyOut":["2.2.2.2"]}"#);
    apply_one(&mut reconciler, spec.clone()).expect("applied");
    spec.addresses = vec![[10, 11, 0, 99].into()];
    apply_one(&mut reconciler, spec).expect("applied, in another slot");
    let id = created.id().as_str();
    reconciler.update_network(id, &network_update(r#"{"denyOut":["3.3.3.3"]}"#)).expect("updated");
    let now = reconciler.registry.find(id).expect("known");
    assert!(Arc::ptr_eq(&now.lifetime, &created.lifetime));
    assert_eq!(machine.persisted_records()[0].lifetime, created.lifetime.to_persisted());
    assert!(machine.persisted_records()[0].lifetime.lease.is_some());
}

#[test]
fn a_repeated_creation_is_the_same_one() {
    let machine = machine_with_pool(&["tap0", "tap1"]);
    let mut reconciler = machine.start_reconciler();
    let created = reconciler.create(request_with_key("k", "1.1.1.1")).expect("created");
    let id = created.id().as_str();
    reconciler.update_network(id, &network_update(r#"{"denyOut":["3.3.3.3"]}"#)).expect("updated");
    let again = reconciler.create(request_with_key("k", "1.1.1.1")).expect("the same");
    assert_eq!(again.id(), created.id());
    let reused = reconciler.create(request_with_key("k", "2.2.2.2")).expect_err("another wish");
    assert!(
        matches!(&reused, AgentError::IdempotencyKeyReused(owner) if owner == created.id()),
        "{reused}"
    );
    let wrong = reconciler.create(request_with_key("k", "example.com")).expect_err("a wrong wish");
    assert!(matches!(wrong, AgentError::Invalid { .. }), "{wrong}");
    drop(reconciler);
    let mut reconciler = machine.start_reconciler();
    let again = reconciler.create(request_with_key("k", "1.1.1.1")).expect("the next agent knows");
    assert_eq!(again.id(), created.id());
    let other = reconciler.create(request_with_key("other", "1.1.1.1")).expect("another key");
    assert_ne!(other.id(), created.id());
    reconciler.delete(created.id().as_str()).expect("deleted");
    let new = reconciler.create(request_with_key("k", "2.2.2.2")).expect("the key is free again");
    assert_ne!(new.id(), created.id());
}

#[test]
fn a_key_does_not_show_on_disk_and_a_password_makes_another_request() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    let with = |password: &str| CreateRequest {
        network: network_update(&format!(
            r#"{{"egressProxy":{{"address":"203.0.113.7:1080","username":"u",
            "password":"{password}"}}}}"#
        )),
        ..request_with_key("do-not-show", "1.1.1.1")
    };
    let created = reconciler.create(with("one")).expect("created");
    let file = machine.disk.path().join(format!("sandboxes/{}.json", created.id()));
    assert!(!std::fs::read_to_string(file).expect("the file").contains("do-not-show"));
    assert_eq!(reconciler.create(with("one")).expect("the same").id(), created.id());
    assert!(matches!(reconciler.create(with("other")), Err(AgentError::IdempotencyKeyReused(_))));
}

/// Starts an agent as the API uses it.
fn started_agent(machine: &TestMachine) -> Agent {
    let store = SandboxStore::open(machine.disk.path()).expect("a store");
    let platform_policy =
        PlatformPolicy { floor: Floor::default(), defaults: PolicyDefaults::default() };
    let (dataplane, proxy) = (Arc::clone(&machine.dataplane), Arc::clone(&machine.dataplane));
    let (platform_policy, attribution, pooled_interfaces) =
        (platform_policy.into(), Arc::default(), machine.pooled_interfaces.to_vec());
    Agent::start(dataplane, proxy, store, platform_policy, attribution, pooled_interfaces)
        .expect("started")
}

#[tokio::test]
async fn concurrent_creations_with_one_key_make_one_sandbox() {
    let machine = machine_with_pool(&["tap0", "tap1"]);
    let agent = started_agent(&machine);
    let creations = (0..8).map(|_| agent.create(request_with_key("k", "1.1.1.1")));
    let created = futures_util::future::try_join_all(creations).await.expect("created");
    assert!(created.iter().all(|sandbox| sandbox.id() == created[0].id()));
    assert_eq!(agent.registry().len(), 1);
}

#[tokio::test]
async fn leases_end_by_the_clock_also_when_they_change() {
    let machine = machine_with_pool(&["tap0", "tap1"]);
    let agent = started_agent(&machine);
    let clock = agent.clone();
    let clock = tokio::spawn(async move { clock.expire_leases().await });
    let long = agent.create(request_with_timeout(Duration::from_secs(600))).await.expect("created");
    let soon =
        agent.create(request_with_timeout(Duration::from_millis(20))).await.expect("created");
    let patience = Duration::from_secs(10);
    let ended = tokio::time::timeout(patience, soon.lifetime.cancellation().cancelled()).await;
    ended.expect("the second lease is over before the first");
    agent.renew(long.id().as_str(), Duration::from_millis(20)).await.expect("renewed");
    let ended = tokio::time::timeout(patience, long.lifetime.cancellation().cancelled()).await;
    ended.expect("a lease that was made shorter is over");
    clock.abort();
}
