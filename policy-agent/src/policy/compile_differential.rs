//! One longest-prefix match in the compiled table yields the verdict, reason and rule of
//! `evaluate`, for random policies and destinations of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use policy_common::{
    reason::Reason,
    verdict::{NO_RULE, VERDICT_REDIRECT_TCP, VERDICT_REDIRECT_WEB, Verdict},
};
use proptest::{prelude::*, sample::select};

use super::{
    CompiledPolicy, EgressProxy, Floor, FlowDestination, NetworkConfig, Policy, PolicyDefaults,
    PolicyMode, cidr, compile_policy, embedded_ipv4, evaluate_packet, resolve_rule,
};

/// Models the kernel program: one lookup, a second one for the client of a Teredo address, and for
/// TCP whether line 7 precedes the match and whether the agent must tunnel the connection.
fn kernel_verdict(table: &CompiledPolicy, destination: &FlowDestination) -> (Reason, u32, bool) {
    let (reason, rule, flags) = lookup_with_teredo(table, destination.address);
    let is_tcp = destination.protocol == 6;
    if is_tcp && matches!(destination.port, Some(80 | 443)) && flags & VERDICT_REDIRECT_WEB != 0 {
        return (Reason::ByName, NO_RULE, false);
    }
    (reason, rule, is_tcp && flags & VERDICT_REDIRECT_TCP != 0)
}

fn lookup_with_teredo(table: &CompiledPolicy, address: IpAddr) -> (Reason, u32, u8) {
    let found = longest_match(table, address);
    let IpAddr::V6(v6) = address else { return found };
    if matches!(found.0, Reason::PlatformAllow | Reason::PlatformDeny) {
        return found;
    }
    match embedded_ipv4::teredo_client(v6).map(|client| longest_match(table, client.into())) {
        Some(client @ (Reason::PlatformDeny, ..)) => client,
        _ => found,
    }
}

fn longest_match(table: &CompiledPolicy, address: IpAddr) -> (Reason, u32, u8) {
    let (_, verdict) = match address {
        IpAddr::V4(v4) => {
            let matching = table.ipv4_entries.iter().filter(|(net, _)| net.contains(&v4));
            matching.map(|(net, verdict)| (net.prefix_len(), *verdict)).max_by_key(|found| found.0)
        }
        IpAddr::V6(v6) => {
            let matching = table.ipv6_entries.iter().filter(|(net, _)| net.contains(&v6));
            matching.map(|(net, verdict)| (net.prefix_len(), *verdict)).max_by_key(|found| found.0)
        }
    }
    .expect("both tables hold /0");
    let Verdict { reason_code: reason, flags, policy_id: policy, rule_index: rule } = verdict;
    assert_eq!(policy, 0);
    (Reason::from_code(reason).expect("a reason"), rule, flags)
}

/// Addresses close enough to each other for prefixes to overlap.
fn any_ipv4() -> impl Strategy<Value = Ipv4Addr> {
    const BASES: &[&str] =
        &["10.1.2.3", "8.8.8.8", "255.255.255.255", "169.254.169.254", "128.0.0.0", "1.0.0.0"];
    (select(BASES), 0_u32..32, any::<bool>()).prop_map(|(base, bit, flip)| {
        let base: Ipv4Addr = base.parse().expect("an address");
        Ipv4Addr::from_bits(base.to_bits() ^ (u32::from(flip) << bit))
    })
}

fn any_ipv6() -> impl Strategy<Value = Ipv6Addr> {
    const BASES: &[&str] =
        &["2001:db8::1", "fd00::2", "ff02::1", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];
    let plain = (select(BASES), 0_u32..128, any::<bool>()).prop_map(|(base, bit, flip)| {
        let base: Ipv6Addr = base.parse().expect("an address");
        Ipv6Addr::from_bits(base.to_bits() ^ (u128::from(flip) << bit))
    });
    let embedding = (any_ipv4(), any_ipv4(), 0..6).prop_map(|(one, other, form)| {
        let (one, other) = (u128::from(one.to_bits()), u128::from(other.to_bits()));
        Ipv6Addr::from_bits(match form {
            0 => one,
            1 => 0xffff << 32 | one,
            2 => 0x0064_ff9b << 96 | one,
            3 => 0x2002 << 112 | one << 80 | other,
            4 => 0x2001_0000 << 96 | one << 64 | (other ^ 0xffff_ffff),
            // One bit away from the NAT64 prefix. Embeds no address.
            _ => 0x0064_ff9a << 96 | one,
        })
    });
    prop_oneof![plain, embedding]
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any_ipv4().prop_map(IpAddr::from), any_ipv6().prop_map(IpAddr::from)]
}

/// An entry of a list, in its text form.
fn any_entry() -> impl Strategy<Value = String> {
    let net = (any_address(), any::<prop::sample::Index>()).prop_map(|(address, length)| {
        let bits = if address.is_ipv4() { 33 } else { 129 };
        format!("{address}/{}", length.index(bits))
    });
    prop_oneof![
        12 => net.prop_filter("refused", |entry| cidr::parse_sandbox_cidr(entry, "").is_ok()),
        3 => any_address()
            .prop_map(|address| address.to_string())
            .prop_filter("refused", |entry| cidr::parse_sandbox_cidr(entry, "").is_ok()),
        1 => select(&["0.0.0.0/0", "::/0"][..]).prop_map(str::to_owned),
    ]
}

fn any_entries(most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(any_entry(), 0..=most)
}

prop_compose! {
    fn floor()(
        allow in any_entries(3),
        deny in prop::option::of(any_entries(5)),
        current in any::<bool>(),
        added in any_entries(2),
        host in prop::collection::vec((any_address(), any::<prop::sample::Index>()), 0..4),
    ) -> Floor {
        // The operator's lists may contain the unspecified address.
        let deny = deny.map(|mut deny| {
            if current {
                deny.insert(0, "0.0.0.0/8".to_owned());
            }
            deny
        });
        let host: Vec<IpNet> = host.into_iter().map(|(address, length)| {
            // Mostly single addresses.
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let length = u8::try_from(length.index(2 * bits).min(bits)).expect("a length");
            IpNet::new(address, length).expect("a length of the family").trunc()
        }).collect();
        let floor = Floor::new(&allow, deny.as_deref()).expect("a floor");
        floor.with_deny_add(&added).expect("a floor").with_host_addresses(&host)
    }
}

prop_compose! {
    fn policy_under_a_floor()(
        floor in floor(),
        mut allow in any_entries(5),
        deny in any_entries(5),
        domain in prop::option::of(select(&["example.com", "*.example.com", "*"][..])),
        servers in prop::option::of(prop::collection::vec(any_address(), 0..3)),
        internet in any::<bool>(),
        tunnel in prop::bool::weighted(0.3),
        mode in select(&[PolicyMode::Enforce, PolicyMode::Observe][..]),
    ) -> (Floor, Policy) {
        if let Some(domain) = domain {
            // In the middle, to test that indices of addresses also count domains.
            allow.insert(allow.len() / 2, domain.to_owned());
        }
        let servers = servers.filter(|_| domain.is_some()).map(|servers| {
            let named = servers.iter().filter(|server| !server.to_canonical().is_unspecified());
            named.map(ToString::to_string).collect()
        });
        let proxy = EgressProxy::without_options("proxy.example.com:1080");
        let network = NetworkConfig {
            allow_out: Some(allow),
            deny_out: Some(deny),
            dns_servers: servers,
            egress_proxy: tunnel.then_some(proxy),
            ..NetworkConfig::default()
        };
        let internet = internet && domain.is_none();
        let policy = Policy::new(&network, Some(internet), &PolicyDefaults::default(), &floor);
        (floor, policy.expect("a policy").with_mode(mode))
    }
}

/// Addresses at which verdicts may change: the ends of every prefix in the lists, and their
/// neighbours.
fn boundary_addresses(policy: &Policy, floor: &Floor) -> Vec<IpAddr> {
    let allowed = policy.allow_out().iter().filter_map(|target| target.to_string().parse().ok());
    let nets =
        allowed.chain(policy.deny_out().iter().chain(&*floor.allow).chain(&*floor.deny).copied());
    let nets = nets.chain(floor.deny_add.iter().chain(&*floor.host_addresses).copied());
    let mut edges = policy.nameservers().to_vec();
    for net in nets {
        match net {
            IpNet::V4(v4) => {
                let (first, last) = (v4.network().to_bits(), v4.broadcast().to_bits());
                let near = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                edges.extend(near.map(Ipv4Addr::from_bits).map(IpAddr::from));
                for inside in embedded_ipv4::embedding_prefixes(v4) {
                    edges.extend(prefix_neighbours(inside));
                }
            }
            IpNet::V6(v6) => edges.extend(prefix_neighbours(v6)),
        }
    }
    edges
}

fn prefix_neighbours(net: ipnet::Ipv6Net) -> [IpAddr; 4] {
    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
    let near = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
    near.map(Ipv6Addr::from_bits).map(IpAddr::from)
}

proptest! {
    #[test]
    fn the_table_answers_like_the_oracle(
        (floor, policy) in policy_under_a_floor(),
        random in prop::collection::vec(any_address(), 32),
    ) {
        let table = compile_policy(&policy, &floor);
        for address in random.into_iter().chain(boundary_addresses(&policy, &floor)) {
            for (protocol, port) in [(6, Some(443)), (6, Some(22)), (6, None), (17, Some(443)), (1, None)] {
                let destination = FlowDestination { address, protocol, port, host: None };
                let (reason, index, tunnel) = kernel_verdict(&table, &destination);
                let oracle = evaluate_packet(&policy, &floor, &destination);
                let by_tunnel = oracle.tunnel && reason != Reason::ByName;
                prop_assert_eq!(tunnel, by_tunnel, "{:?}", &destination);
                prop_assert_eq!(reason == Reason::WouldDeny, oracle.would_deny);
                let denying = if oracle.would_deny { Reason::DenyOut } else { reason };
                prop_assert_eq!(denying, oracle.reason, "{:?}", &destination);
                prop_assert_eq!(reason.passes(), oracle.allowed);
                prop_assert_eq!(reason.line(), oracle.line);
                let named = resolve_rule(&policy, &floor, reason, index);
                prop_assert_eq!(named, oracle.rule, "{:?}", &destination);
            }
        }
    }

    #[test]
    fn the_table_holds_no_entry_that_never_decides_and_no_prefix_twice(
        (floor, policy) in policy_under_a_floor(),
    ) {
        let table = compile_policy(&policy, &floor);
        prop_assert!(table.ipv4_entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
        prop_assert!(table.ipv6_entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
        prop_assert_eq!(table.ipv4_entries[0].0.prefix_len(), 0);
        prop_assert_eq!(table.ipv6_entries[0].0.prefix_len(), 0);
        for (net, verdict) in &table.ipv4_entries {
            for (outer, around) in table.ipv4_entries.iter().filter(|(outer, _)| outer.contains(net)) {
                let lines = [around, verdict].map(|v| Reason::from_code(v.reason_code).map(Reason::line));
                prop_assert!(lines[0] >= lines[1], "{} inside {}", net, outer);
            }
        }
        prop_assert_eq!(&table, &compile_policy(&policy, &floor));
    }

    #[test]
    fn the_floor_admits_what_lines_4_and_5_let_through(
        (floor, policy) in policy_under_a_floor(),
        address in any_address(),
    ) {
        let destination = FlowDestination { address, protocol: 17, port: Some(53), host: None };
        let oracle = evaluate_packet(&policy, &floor, &destination);
        prop_assert_eq!(floor.admits(address), oracle.reason != Reason::PlatformDeny);
    }
}
