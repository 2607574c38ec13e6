//! Line 7: the egress proxy's verdict about a connection, by the requested name.

use std::net::IpAddr;

use policy_common::reason::Reason;

use super::{
    DomainSet, Explanation, Floor, Policy, RequestedName, RuleRef, evaluate,
    requested_name::RequestedHost,
};

/// The verdict about a connection that the kernel redirected to be judged by name. If the name is
/// missing or an IP address, only the address of the packets decides.
#[must_use]
pub fn evaluate_by_name(
    policy: &Policy,
    names: &DomainSet,
    floor: &Floor,
    name: Option<&RequestedName>,
    address: IpAddr,
) -> Explanation {
    let (reason, place) = match name.map(RequestedName::host) {
        None | Some(RequestedHost::Address) => {
            return evaluate::evaluate_by_address(policy, floor, address);
        }
        Some(RequestedHost::Domain(domain)) => match names.most_specific_match(domain) {
            Some(place) => (Reason::AllowName, Some(place)),
            None => (Reason::NameNotAllowed, None),
        },
        Some(RequestedHost::Invalid) => (Reason::InvalidName, None),
    };
    let allowed = evaluate::passes(policy, reason);
    Explanation {
        allowed,
        would_deny: evaluate::would_deny(policy, reason),
        reason,
        line: reason.line(),
        rule: place.and_then(|place| RuleRef::from_domain(policy, place)),
        by_name: true,
        tunnel: allowed && policy.egress_proxy().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::{prelude::*, sample::select};

    use super::super::{
        EgressProxy, FlowDestination, NetworkConfig, PolicyDefaults, evaluate_connection,
    };
    use super::*;

    /// Few labels, so that names and patterns often match. One label is a suffix of another only as
    /// text.
    fn any_name() -> impl Strategy<Value = String> {
        let label = select(&["a", "aa", "b", "c-c", "d_d", "xn--bcher-kva", "example"][..]);
        prop::collection::vec(label, 1..5).prop_map(|labels| labels.join("."))
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => any_name(),
            4 => any_name().prop_map(|name| format!("*.{name}")),
            1 => Just("*".to_owned()),
            1 => Just("203.0.113.0/24".to_owned()),
        ]
    }

    /// Hosts that a client may send: names in all spellings, addresses, and invalid text.
    fn any_host() -> impl Strategy<Value = Option<String>> {
        prop::option::weighted(
            0.95,
            prop_oneof![
                6 => any_name(),
                1 => any_name().prop_map(|name| name.to_ascii_uppercase()),
                1 => any_name().prop_map(|name| format!("{name}.")),
                1 => any::<Ipv4Addr>().prop_map(|address| address.to_string()),
                1 => any::<Ipv6Addr>().prop_map(|address| address.to_string()),
                1 => any::<Ipv6Addr>().prop_map(|address| format!("[{address}]")),
                1 => (any_name(), any_name()).prop_map(|(one, other)| format!("{one}\0.{other}")),
                1 => select(&["", ".", "a..b", "-a", "-a.b", "a-.b", "a!.b", "bücher.a", "*.a", "1.2.3"][..])
                    .prop_map(str::to_owned),
                1 => ".{0,12}",
            ],
        )
    }

    fn policy_of_patterns(patterns: Vec<String>, tunnel: bool) -> Policy {
        let proxy = EgressProxy::without_options("proxy.example.com:1080");
        let network = NetworkConfig {
            allow_out: Some(patterns),
            deny_out: Some(vec!["1.1.1.1".to_owned(), "0.0.0.0/0".to_owned()]),
            egress_proxy: tunnel.then_some(proxy),
            ..NetworkConfig::default()
        };
        let defaults = PolicyDefaults::default();
        Policy::new(&network, None, &defaults, &Floor::default()).expect("a policy")
    }

    proptest! {
        /// The proxy's verdict equals that of the slow evaluation.
        #[test]
        fn the_proxy_judges_like_the_oracle(
            mut patterns in prop::collection::vec(any_pattern(), 0..8),
            hosts in prop::collection::vec(any_host(), 8),
            tunnel: bool,
        ) {
            patterns.push("always.example".to_owned()); // ensures that the policy has names
            let (policy, floor) = (policy_of_patterns(patterns, tunnel), Floor::default());
            let names = DomainSet::from_policy(&policy);
            for host in hosts {
                let name = host.as_deref().map(RequestedName::parse);
                for address in [[1, 1, 1, 1], [198, 51, 100, 7]].map(IpAddr::from) {
                    let asked = FlowDestination {
                        address,
                        protocol: 6,
                        port: Some(443),
                        host: host.clone(),
                    };
                    let decided = evaluate_by_name(&policy, &names, &floor, name.as_ref(), address);
                    prop_assert_eq!(decided, evaluate_connection(&policy, &floor, &asked), "{:?}", asked);
                }
            }
        }

        /// Directly from the definition: an exact name is equal, and a wildcard is any prefix that
        /// ends before a dot.
        #[test]
        fn a_name_is_allowed_if_and_only_if_a_pattern_says_so(
            patterns in prop::collection::vec(any_pattern(), 1..6),
            name in any_name(),
        ) {
            let by_the_text = patterns.iter().any(|pattern| match pattern.strip_prefix('*') {
                Some("") => true,
                Some(suffix) => name.ends_with(suffix) && name.len() > suffix.len(),
                None => *pattern == name,
            });
            let policy = policy_of_patterns(patterns, false);
            let address = IpAddr::from([198, 51, 100, 7]);
            let names = DomainSet::from_policy(&policy);
            let name = RequestedName::parse(&name);
            let decided = evaluate_by_name(&policy, &names, &Floor::default(), Some(&name), address);
            prop_assert_eq!(decided.allowed, by_the_text);
        }
    }
}
