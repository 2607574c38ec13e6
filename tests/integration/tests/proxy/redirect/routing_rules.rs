//! The routing rules: they exist exactly once while any proxy listener is open, and are removed
//! with the last one.

use std::process::Command;

use policy_agent::dataplane::{Dataplane, HostInterface, Slot};
use policy_testbed::{
    network::{NetworkNamespace, TestNetwork, command},
    testbed::OrFail as _,
    wait::WAIT_LIMIT,
};

use super::redirect_testbed::{
    DOMAIN_NETWORK, RedirectTestbed, UNNAMED_ADDRESSES, assert_carries, socket_address,
};

/// The agent's rules and routes of both families, as `ip` shows them.
fn agent_rules_and_routes(host: &NetworkNamespace) -> Vec<String> {
    let mut lines = Vec::new();
    for family in ["-4", "-6"] {
        let mut shown = |what: &[&str]| {
            let mut ip = Command::new("ip");
            ip.args(["-n", host.name(), family]).args(what);
            let text = command::run(&mut ip).or_fail("asking for rules");
            let ours = text.lines().filter(|line| {
                line.contains("0x7061") || line.contains("28769") || what[0] == "route"
            });
            lines.extend(ours.map(|line| {
                format!("{family} {}", line.split_whitespace().collect::<Vec<_>>().join(" "))
            }));
        };
        shown(&["rule"]);
        // The table does not exist before its first route.
        shown(&["route", "show", "table", "all", "type", "local", "dev", "lo", "default"]);
    }
    lines
}

const EXPECTED_RULES: [&str; 6] = [
    "-4 96: from all fwmark 0x70610001 iif lo lookup main",
    "-4 97: from all fwmark 0x70610001 lookup 28769",
    "-4 local default table 28769 proto static scope host",
    "-6 96: from all fwmark 0x70610001 iif lo lookup main",
    "-6 97: from all fwmark 0x70610001 lookup 28769",
    "-6 local default table 28769 proto static metric 1024 pref medium",
];

#[test]
fn rules_exist_once_and_go_with_the_last_listeners() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    assert!(agent_rules_and_routes(&world.host).is_empty());
    let doors = [1, 2].map(|slot| Slot::new(slot).or_fail("a slot"));
    let interface = &stage.interface;
    for _ in 0..3 {
        for slot in doors {
            let _listeners =
                stage.dataplane.open_listeners(slot, interface).or_fail("opening listeners");
        }
    }
    assert_eq!(agent_rules_and_routes(&world.host), EXPECTED_RULES);
    stage.dataplane.close_listeners(doors[0]).or_fail("closing a door");
    assert_eq!(agent_rules_and_routes(&world.host), EXPECTED_RULES);
    stage.dataplane.close_listeners(doors[1]).or_fail("closing the last door");
    assert!(
        agent_rules_and_routes(&world.host).is_empty(),
        "{:?}",
        agent_rules_and_routes(&world.host)
    );
}

#[test]
fn listeners_that_move_take_the_rules_along() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let _door = stage.open_proxy_listeners();
    let elsewhere = HostInterface { name: "lo".to_owned(), netns: Some(world.internet.path()) };
    let _moved = stage.dataplane.open_listeners(stage.slot, &elsewhere).or_fail("opening a door");
    assert!(agent_rules_and_routes(&world.host).is_empty());
    assert_eq!(agent_rules_and_routes(&world.internet), EXPECTED_RULES);
}

#[test]
fn the_next_agent_finds_them_and_a_clean_up_removes_them() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let _door = stage.open_proxy_listeners();
    let stage = stage.reopened();
    let door = stage.open_proxy_listeners();
    assert_eq!(agent_rules_and_routes(&world.host), EXPECTED_RULES);
    stage.connect_via_listeners(&door, socket_address("1.1.1.1", 443));
    let gone = HostInterface { name: "tap0".to_owned(), netns: Some("/run/netns/no-such".into()) };
    let _inside = world.internet.enter().or_fail("entering the internet");
    let interfaces = [stage.interface.clone(), gone];
    Dataplane::cleanup(stage.bpffs.path(), &interfaces).or_fail("cleaning up");
    assert!(agent_rules_and_routes(&world.host).is_empty());
    let _inside = world.host.enter().or_fail("entering the host");
    Dataplane::cleanup(stage.bpffs.path(), &interfaces).or_fail("cleaning up twice");
}

/// With every setting of the reverse path filter and of its use of marks.
#[test]
fn redirects_work_with_every_reverse_path_filter() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    for (filter, mark) in [("0", "1"), ("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")] {
        world.host.sysctl("ipv4/conf/all/rp_filter", filter).or_fail("a sysctl");
        world.host.sysctl("ipv4/conf/all/src_valid_mark", mark).or_fail("a sysctl");
        for address in UNNAMED_ADDRESSES {
            let (mut inside, mut outside) =
                stage.connect_via_listeners(&door, socket_address(address, 443));
            assert_carries(&mut inside, &mut outside);
        }
    }
    world.host.sysctl("ipv4/tcp_fwmark_accept", "1").or_fail("a sysctl");
    let (mut inside, mut outside) =
        stage.connect_via_listeners(&door, socket_address("1.1.1.1", 443));
    assert_carries(&mut inside, &mut outside);
}

#[test]
fn a_loopback_that_is_down_is_brought_up() {
    let world = TestNetwork::build().or_fail("building a world");
    world.host.ip_batch("link set lo down").or_fail("taking the loopback down");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let door = stage.open_proxy_listeners();
    for address in UNNAMED_ADDRESSES {
        stage.connect_via_listeners(&door, socket_address(address, 443));
    }
}

#[test]
fn without_ipv6_there_is_no_ipv6_listener() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    world.host.sysctl("ipv6/conf/all/disable_ipv6", "1").or_fail("a sysctl");
    let door = stage.open_proxy_listeners();
    assert!(door.v6.is_none());
    stage.connect_via_listeners(&door, socket_address("1.1.1.1", 443));
}

#[test]
fn listeners_in_a_deleted_namespace_fail_and_close() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let namespace = NetworkNamespace::create("brief").or_fail("making a namespace");
    let elsewhere = HostInterface { name: "lo".to_owned(), netns: Some(namespace.path()) };
    let door = stage.dataplane.open_listeners(stage.slot, &elsewhere).or_fail("opening a door");
    drop(namespace);
    let error = stage.dataplane.open_listeners(stage.slot, &elsewhere).expect_err("it is gone");
    assert!(error.to_string().contains("netns"), "{error:#}");
    stage.dataplane.close_listeners(stage.slot).or_fail("closing the door");
    drop(door);
}

#[test]
fn a_thousand_listeners_open_soon() {
    let world = TestNetwork::build().or_fail("building a world");
    let stage = RedirectTestbed::in_network(&world, DOMAIN_NETWORK);
    let begin = std::time::Instant::now();
    let slots: Vec<_> = Slot::all().skip(100).take(1_000).collect();
    let open = |slot: &Slot| stage.dataplane.open_listeners(*slot, &stage.interface);
    let doors: Vec<_> = slots.iter().map(|slot| open(slot).or_fail("opening a door")).collect();
    let opened = begin.elapsed();
    for slot in slots {
        stage.dataplane.close_listeners(slot).or_fail("closing a door");
    }
    println!(
        "{} doors opened in {opened:.2?}, closed in {:.2?}",
        doors.len(),
        begin.elapsed() - opened
    );
    assert!(agent_rules_and_routes(&world.host).is_empty());
    assert!(opened < *WAIT_LIMIT, "{opened:?}");
}
