//! A reload of the configuration gives all sandboxes the new platform policy, or none.

use super::*;
use crate::policy::{FlowDestination, evaluate_connection};

/// The platform policy with an addition to the floor.
fn denying_in_addition(denied: &[&str]) -> PlatformPolicy {
    let denied: Vec<String> = denied.iter().map(|&net| net.to_owned()).collect();
    let floor = Floor::default().with_deny_add(&denied).expect("networks");
    PlatformPolicy { floor, defaults: PolicyDefaults::default() }
}

/// Whether a sandbox may send to an address.
fn is_allowed(reconciler: &Reconciler, sandbox: &str, address: &str) -> bool {
    let sandbox = reconciler.registry.find(sandbox).expect("known");
    let address: IpAddr = address.parse().expect(address);
    let destination = FlowDestination { address, protocol: 17, port: Some(53), host: None };
    let active_policy = &sandbox.active_policy;
    evaluate_connection(&active_policy.policy, &active_policy.floor, &destination).allowed
}

/// Asserts that the kernel has the policies of the registry.
fn assert_published(machine: &TestMachine, reconciler: &Reconciler) {
    for sandbox in reconciler.registry.all() {
        let published = machine.dataplane.state().published[&sandbox.slot];
        assert_eq!(published.digest, sandbox.active_policy.digest, "{}", sandbox.id());
        assert_eq!(Some(published.policy_id), sandbox.policy_id, "{}", sandbox.id());
    }
}

/// Two sandboxes with different policies.
fn two_sandboxes(machine: &TestMachine) -> Reconciler {
    let mut reconciler = machine.start_reconciler();
    let specs = vec![
        sandbox_spec("one", "tap0", "10.11.0.2", "1.1.1.1"),
        sandbox_spec("two", "tap1", "10.11.0.3", "2.2.2.2"),
    ];
    reconciler.apply(specs).expect("applied");
    reconciler
}

#[test]
fn all_sandboxes_get_the_new_floor_and_scans_keep_it() {
    let machine = TestMachine::new();
    let mut reconciler = two_sandboxes(&machine);
    let policy = denying_in_addition(&["203.0.113.0/24"]);
    assert_eq!(reconciler.replace_platform_policy(policy.clone()).expect("replaced"), 2);
    for sandbox in ["one", "two"] {
        assert!(!is_allowed(&reconciler, sandbox, "203.0.113.7"));
        assert!(is_allowed(&reconciler, sandbox, "198.51.100.7"));
    }
    assert_published(&machine, &reconciler);
    machine.dataplane.state().calls.clear();
    reconciler.refresh_host_addresses(&[None]);
    reconciler.reconcile_sandboxes(&["one".parse().expect("an ID")]);
    assert_eq!(reconciler.replace_platform_policy(policy).expect("replaced"), 0, "nothing differs");
    assert!(!machine.dataplane.state().calls.contains(&"publish"));
    let later = sandbox_spec("one", "tap0", "10.11.0.2", "3.3.3.3");
    apply_one(&mut reconciler, later).expect("applied");
    assert!(!is_allowed(&reconciler, "one", "203.0.113.7"));
    reconciler.replace_platform_policy(denying_in_addition(&[])).expect("replaced");
    assert!(is_allowed(&reconciler, "one", "203.0.113.7"));
    assert_published(&machine, &reconciler);
}

#[test]
fn if_one_sandbox_cannot_follow_none_does() {
    let machine = TestMachine::new();
    let mut reconciler = two_sandboxes(&machine);
    let before = machine.dataplane.state().published.clone();
    machine.fail_call("publish");
    let error = reconciler.replace_platform_policy(denying_in_addition(&["203.0.113.0/24"]));
    let error = error.expect_err("the kernel refuses").to_string();
    assert!(error.contains("nothing was changed"), "{error}");
    machine.fail_nothing();
    assert_eq!(machine.dataplane.state().published.len(), before.len());
    for sandbox in ["one", "two"] {
        assert!(is_allowed(&reconciler, sandbox, "203.0.113.7"));
    }
    assert_published(&machine, &reconciler);
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.9", "1.1.1.1"))
        .expect_err("tap0 is taken");
    let later = sandbox_spec("one", "tap0", "10.11.0.2", "3.3.3.3");
    apply_one(&mut reconciler, later).expect("applied");
    assert!(
        is_allowed(&reconciler, "one", "203.0.113.7"),
        "later policies have the old floor, too"
    );
}

#[test]
fn a_floor_that_makes_a_policy_invalid_is_refused_with_the_sandboxs_name() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let text = r#"{"sandboxID":"relayed","interface":"tap0","addresses":["10.11.0.2"],
        "network":{"egressProxy":{"address":"203.0.113.7:1080"}}}"#;
    let spec = parse_manifest(text).expect("a right sandbox").remove(0);
    apply_one(&mut reconciler, spec).expect("applied");
    let error = reconciler.replace_platform_policy(denying_in_addition(&["203.0.113.0/24"]));
    let error = error.expect_err("its proxy would be unreachable").to_string();
    assert!(error.contains("sandbox relayed: network.egressProxy.address"), "{error}");
    assert!(is_allowed(&reconciler, "relayed", "203.0.113.7"));
}
