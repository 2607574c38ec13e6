//! The core of the policy semantics, as tests for every way of attaching. Each function takes a
//! sandbox that the agent does not know yet.
//!
//! `precedence_tests!` turns them into tests.

use serde_json::json;

use policy_testbed::{
    network::internet_addresses, probe::ProbeResult, test_servers, testbed::TestSandbox,
};

/// Creates a test for each function here, on the given shared testbed.
macro_rules! precedence_tests {
    ($stage:expr) => {
        precedence_tests! { $stage =>
            deny_all_but_an_address_and_a_network,
            deny_one_address,
            no_internet_but_what_is_allowed,
            no_internet_at_all,
            without_rules_everything_but_the_floor,
            allow_beats_a_longer_deny,
            allow_all_beats_deny_all,
            deny_all_of_ipv6_alone,
            deny_ipv6_and_allow_one_of_it,
            host_bits_do_not_count,
            a_prefix_ends_where_it_ends,
            a_mapped_entry_is_its_ipv4,
            order_and_repetition_do_not_matter,
            the_floor_beats_allow_out,
            replacing_a_policy_replaces_all_of_it,
        }
    };
    ($stage:expr => $($test:ident,)*) => {
        $(
            #[test]
            fn $test() {
                $crate::precedence_cases::$test(&$stage.add_sandbox());
            }
        )*
    };
}

pub(crate) use precedence_tests;

/// The first example of the public documentation.
#[track_caller]
pub(crate) fn deny_all_but_an_address_and_a_network(sandbox: &TestSandbox) {
    sandbox
        .apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1", "8.8.8.0/24"] }));
    for allowed in ["1.1.1.1", "8.8.8.8", "8.8.8.9"] {
        sandbox.assert_reaches(allowed);
    }
    for denied in ["203.0.113.10", "198.51.100.7", "2001:db8:1::1", "2606:4700:4700::1111"] {
        sandbox.assert_refused(denied);
    }
}

/// Everything else stays allowed.
#[track_caller]
pub(crate) fn deny_one_address(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8", "2001:db8:1::1"] }));
    sandbox.assert_refused("8.8.8.8");
    sandbox.assert_refused("2001:db8:1::1");
    for allowed in ["8.8.8.9", "1.1.1.1", "2001:db8:1::2"] {
        sandbox.assert_reaches(allowed);
    }
}

/// `allowInternetAccess: false` denies everything, and `allowOut` overrides it.
#[track_caller]
pub(crate) fn no_internet_but_what_is_allowed(sandbox: &TestSandbox) {
    let network = json!({ "allowOut": ["8.8.8.8", "2001:db8:1::/64"] });
    sandbox.apply_config(&json!({ "allowInternetAccess": false, "network": network }));
    for allowed in ["8.8.8.8", "2001:db8:1::1", "2001:db8:1::2"] {
        sandbox.assert_reaches(allowed);
    }
    for denied in ["8.8.8.9", "2001:db8:2::1"] {
        sandbox.assert_refused(denied);
    }
}

/// `allowInternetAccess: false` and nothing else.
#[track_caller]
pub(crate) fn no_internet_at_all(sandbox: &TestSandbox) {
    sandbox.apply_config(&json!({ "allowInternetAccess": false }));
    for denied in internet_addresses::PUBLIC_ADDRESSES {
        assert_eq!(
            sandbox.probe_tcp(denied, test_servers::HTTPS_PORT),
            ProbeResult::Refused,
            "{denied}"
        );
        assert_eq!(
            sandbox.probe_udp(denied, test_servers::DNS_PORT),
            ProbeResult::Prohibited,
            "{denied}"
        );
    }
}

/// Absent and empty lists are not rules.
#[track_caller]
pub(crate) fn without_rules_everything_but_the_floor(sandbox: &TestSandbox) {
    for network in [json!({}), json!({ "allowOut": [], "denyOut": [] })] {
        sandbox.apply_network(network);
        for allowed in internet_addresses::PUBLIC_ADDRESSES {
            assert_eq!(
                sandbox.probe_tcp(allowed, test_servers::ECHO_PORT),
                ProbeResult::Answered,
                "{allowed}"
            );
        }
        sandbox.assert_refused("169.254.169.254");
    }
}

/// Independently of the prefix lengths.
#[track_caller]
pub(crate) fn allow_beats_a_longer_deny(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({
        "allowOut": ["203.0.113.0/24", "2001:db8::/32"],
        "denyOut": ["203.0.113.10", "2001:db8:1::1/128", "0.0.0.0/0"],
    }));
    for allowed in ["203.0.113.10", "203.0.113.11", "2001:db8:1::1", "2001:db8:1::2"] {
        sandbox.assert_reaches(allowed);
    }
    sandbox.assert_refused("198.51.100.7");
}

/// ALL_TRAFFIC covers both families in `allowOut`, too.
#[track_caller]
pub(crate) fn allow_all_beats_deny_all(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "allowOut": ["0.0.0.0/0"], "denyOut": ["0.0.0.0/0", "::/0"] }));
    sandbox.assert_reaches("203.0.113.10");
    sandbox.assert_reaches("2001:db8:1::1");
    sandbox.assert_refused("10.99.0.1");
    sandbox.assert_refused("fd99::1");
}

/// `::/0` alone means IPv6 only.
#[track_caller]
pub(crate) fn deny_all_of_ipv6_alone(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "denyOut": ["::/0"] }));
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("2001:db8:1::1");
}

/// IPv6 rules have no effect on IPv4.
#[track_caller]
pub(crate) fn deny_ipv6_and_allow_one_of_it(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "allowOut": ["2001:db8:1::1"], "denyOut": ["::/0"] }));
    sandbox.assert_reaches("2001:db8:1::1");
    sandbox.assert_refused("2001:db8:1::2");
    sandbox.assert_reaches("198.51.100.7");
}

/// `203.0.113.77/24` is `203.0.113.0/24`.
#[track_caller]
pub(crate) fn host_bits_do_not_count(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "denyOut": ["203.0.113.77/24", "2001:db8:1::77/64"] }));
    for denied in ["203.0.113.10", "2001:db8:1::2"] {
        sandbox.assert_refused(denied);
    }
    sandbox.assert_reaches("2001:db8:2::1");
}

/// 8.8.8.8/31 contains 8.8.8.9; 203.0.113.11/32 does not contain 203.0.113.10.
#[track_caller]
pub(crate) fn a_prefix_ends_where_it_ends(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8/31", "203.0.113.11/32", "128.0.0.0/2"] }));
    for denied in ["8.8.8.8", "8.8.8.9", "203.0.113.11"] {
        sandbox.assert_refused(denied);
    }
    for allowed in ["1.1.1.1", "203.0.113.10", "198.51.100.7"] {
        sandbox.assert_reaches(allowed);
    }
}

/// `::ffff:8.8.8.8` is `8.8.8.8`.
#[track_caller]
pub(crate) fn a_mapped_entry_is_its_ipv4(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "denyOut": ["::ffff:8.8.8.8"] }));
    sandbox.assert_refused("8.8.8.8");
    sandbox.assert_reaches("8.8.8.9");
}

/// Overlapping and duplicate entries.
#[track_caller]
pub(crate) fn order_and_repetition_do_not_matter(sandbox: &TestSandbox) {
    let deny = ["8.8.8.0/24", "0.0.0.0/0", "8.8.8.8", "8.0.0.0/8", "8.8.8.8/32", "0.0.0.0/0"];
    let mut backwards = deny;
    backwards.reverse();
    for deny in [deny, backwards] {
        let allow = ["8.8.8.9", "8.8.8.9", "8.8.8.9/32"];
        sandbox.apply_network(json!({ "denyOut": deny, "allowOut": allow }));
        sandbox.assert_refused("8.8.8.8");
        sandbox.assert_reaches("8.8.8.9");
    }
}

/// No sandbox's policy overrides the operator's.
#[track_caller]
pub(crate) fn the_floor_beats_allow_out(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "allowOut": ["169.254.169.254", "10.0.0.0/8", "fd99::1"] }));
    for denied in ["169.254.169.254", "10.99.0.1", "fd99::1", "64:ff9b::a9fe:a9fe"] {
        sandbox.assert_refused(denied);
    }
}

/// Fields absent from the new policy no longer apply.
#[track_caller]
pub(crate) fn replacing_a_policy_replaces_all_of_it(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1"] }));
    sandbox.assert_reaches("1.1.1.1");
    sandbox.assert_refused("8.8.8.8");
    sandbox.apply_network(json!({ "denyOut": ["1.1.1.1"] }));
    sandbox.assert_refused("1.1.1.1");
    sandbox.assert_reaches("8.8.8.8");
}
