//! Name resolution: the agent resolves names itself and never connects to an address that the floor
//! denies. Also, which DNS servers a sandbox may query.

use std::{
    io,
    net::{IpAddr, TcpListener},
};

use hickory_proto::rr::RecordType;
use policy_testbed::{
    named_internet::{
        NamedInternet, WebSite, dns_server, dns_zone::DnsAnswer, server_process::ServerProcess,
    },
    network::host_router::{HOST_UPLINK_V4, HOST_UPLINK_V6},
    probe,
    test_servers::HTTPS_PORT,
    testbed::{OrFail as _, RESOLVER_CONFIG, SharedTestbed, TestSandbox, Testbed, parse_ip},
    wait::eventually,
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

/// An address without a server, which refuses connections.
const REFUSING_ADDRESS: &str = "198.51.100.9";
/// An address without a route.
const UNREACHABLE_V6: &str = "2001:db8:dead::1";
/// Addresses that do not respond at all.
const SILENT_ADDRESSES: [&str; 2] = ["2001:db8:dead:beef::1", "192.0.2.77"];

/// A sandbox whose policy allows `name`.
#[track_caller]
fn sandbox_allowed_name(name: &str) -> TestSandbox {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&[name]);
    sandbox
}

fn internet_of(sandbox: &TestSandbox) -> &NamedInternet {
    sandbox.testbed.named_internet()
}

/// Fetches over TLS from an address that says nothing about the destination.
#[track_caller]
fn fetch_page(sandbox: &TestSandbox, name: &str) -> Value {
    let fetched =
        sandbox.curl(&format!("https://{name}/")).resolving_to(parse_ip("203.0.113.10")).run();
    assert_eq!(fetched.exit_code, 0, "{name}: {fetched:?}");
    fetched.page_json()
}

/// Asserts that HTTP and HTTPS requests for a name are refused with this reason.
#[track_caller]
fn assert_name_refused(sandbox: &TestSandbox, name: &str, status: u64, reason: &str) {
    let to = parse_ip("203.0.113.10");
    let https = sandbox.curl(&format!("https://{name}/")).resolving_to(to).run();
    if status == 502 {
        https.assert_failed_by_alert()
    } else {
        https.assert_denied_by_alert()
    }
    let http = sandbox.curl(&format!("http://{name}/")).resolving_to(to).run();
    http.assert_refused(status, reason);
    sandbox.assert_name_denied(name, reason);
}

#[test]
fn a_name_that_leads_to_a_private_or_metadata_address_is_refused() {
    let private = [
        "169.254.169.254",
        "10.99.0.1",
        "172.16.5.5",
        "192.168.7.7",
        "100.64.0.1",
        "127.0.0.1",
        "fd99::1",
        "::1",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::a9fe:a9fe",
    ];
    let sandbox = sandbox_allowed_name("*.private.example");
    for (i, address) in private.iter().enumerate() {
        let name = format!("n{i}.private.example");
        internet_of(&sandbox)
            .zone
            .set_answer(&name, DnsAnswer::with_addresses(&[parse_ip(address)]));
        assert_name_refused(&sandbox, &name, 403, "platform_deny");
        assert_eq!(internet_of(&sandbox).connection_count(parse_ip(address)), 0, "{address}");
    }
    // Also if the sandbox's own lists allow the address.
    let allowed = ["n0.private.example", "169.254.169.254", "0.0.0.0/0"];
    let other = TESTBED.add_sandbox();
    other.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": &allowed[..2] }));
    assert_name_refused(&other, "n0.private.example", 403, "platform_deny");
    assert_eq!(internet_of(&sandbox).connection_count(parse_ip("169.254.169.254")), 0);
}

#[test]
fn a_name_that_later_resolves_to_a_private_address_is_refused_from_then_on() {
    let sandbox = sandbox_allowed_name("*.rebinding.example");
    let site = sandbox.testbed.add_site("site.rebinding.example");
    let good = DnsAnswer::with_addresses(&[site.v4]);
    for (ttl, name) in [(0, "zero.rebinding.example"), (1, "one.rebinding.example")] {
        let bad = DnsAnswer::with_addresses(&[parse_ip("169.254.169.254")]).with_ttl(ttl);
        internet_of(&sandbox).zone.set_answer_sequence(name, vec![good.clone().with_ttl(ttl), bad]);
        assert!(site.served_page(&fetch_page(&sandbox, name)));
        let url = format!("https://{name}/");
        let refused = || {
            let fetched = sandbox.curl(&url).resolving_to(parse_ip("203.0.113.10")).run();
            (fetched.exit_code != 0).then(|| fetched.assert_denied_by_alert())
        };
        eventually("the new answer counts", refused).or_fail(name);
        sandbox.assert_name_denied(name, "platform_deny");
    }
    assert_eq!(internet_of(&sandbox).connection_count(parse_ip("169.254.169.254")), 0);
}

#[test]
fn of_several_addresses_those_that_refuse_are_skipped() {
    let sandbox = sandbox_allowed_name("*.several.example");
    let site = sandbox.testbed.add_site("site.several.example");
    let zone = &internet_of(&sandbox).zone;
    let metadata = parse_ip("169.254.169.254");
    let silence = "route add blackhole 2001:db8:dead:beef::/64\nroute add blackhole 192.0.2.77";
    sandbox.testbed.network.internet.ip_batch(silence).or_fail("addresses of nobody");
    let neighbour = "neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev uplink nud permanent";
    sandbox.testbed.network.host.ip_batch(neighbour).or_fail("a way to them");
    let cases: [(&str, Vec<IpAddr>); 8] = [
        ("first-bad.several.example", vec![metadata, site.v4]),
        ("last-bad.several.example", vec![site.v4, metadata]),
        ("six-bad.several.example", vec![parse_ip("fd99::1"), site.v4]),
        ("four-bad.several.example", vec![parse_ip("10.99.0.1"), site.v6]),
        ("refusing.several.example", vec![parse_ip(REFUSING_ADDRESS), site.v4]),
        ("no-route.several.example", vec![parse_ip(UNREACHABLE_V6), site.v4]),
        ("silent-six.several.example", vec![parse_ip(SILENT_ADDRESSES[0]), site.v4]),
        ("silent-four.several.example", vec![parse_ip(SILENT_ADDRESSES[1]), site.v4]),
    ];
    for (name, addresses) in cases {
        zone.set_answer(name, DnsAnswer::with_addresses(&addresses));
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{name}/");
            let fetched = sandbox.curl(&url).resolving_to(parse_ip("203.0.113.10")).run();
            assert!(site.served_page(&fetched.page_json()), "{url}: {fetched:?}");
        }
    }
    for closed in ["169.254.169.254", "fd99::1", "10.99.0.1"] {
        assert_eq!(internet_of(&sandbox).connection_count(parse_ip(closed)), 0, "{closed}");
    }
}

#[test]
fn one_family_is_enough() {
    let sandbox = sandbox_allowed_name("*.family.example");
    let site = sandbox.testbed.add_site("site.family.example");
    let zone = &internet_of(&sandbox).zone;
    let both = DnsAnswer::with_addresses(&site.addresses());
    let cases = [
        ("four.family.example", DnsAnswer::with_addresses(&[site.v4]), site.v4),
        ("six.family.example", DnsAnswer::with_addresses(&[site.v6]), site.v6),
        ("six-fails.family.example", both.clone().failing_for(RecordType::AAAA), site.v4),
        ("four-fails.family.example", both.clone().failing_for(RecordType::A), site.v6),
        ("alias.family.example", both.clone().via_aliases(&["a.example", "b.example"]), site.v4),
        ("tcp.family.example", both.truncated_over_udp(), site.v4),
    ];
    for (name, answer, expected) in cases {
        zone.set_answer(name, answer);
        let page = fetch_page(&sandbox, name);
        let family = |address: IpAddr| address.is_ipv4();
        let server = page["server"].as_str().and_then(|text| text.parse().ok());
        let server: IpAddr = server.or_fail(name);
        assert!(site.addresses().contains(&server), "{name}: {page}");
        if !name.starts_with("alias") && !name.starts_with("tcp") {
            assert_eq!(family(server), family(expected), "{name}: {page}");
        }
    }
    assert!(zone.queries_for("tcp.family.example").iter().any(|asked| asked.over_tcp));
}

/// The name of an alias does not matter, only the requested name.
#[test]
fn an_alias_is_not_judged_but_where_it_leads_is() {
    let sandbox = sandbox_allowed_name("alias.example");
    let site = sandbox.testbed.add_site("target.alias.test");
    let zone = &internet_of(&sandbox).zone;
    zone.set_answer(
        "alias.example",
        DnsAnswer::with_addresses(&[site.v4]).with_ttl(0).via_aliases(&["elsewhere.test"]),
    );
    assert!(site.served_page(&fetch_page(&sandbox, "alias.example")));
    let sandbox = sandbox_allowed_name("bad-alias.example");
    let private =
        DnsAnswer::with_addresses(&[parse_ip("10.99.0.1")]).via_aliases(&["internal.test"]);
    internet_of(&sandbox).zone.set_answer("bad-alias.example", private);
    assert_name_refused(&sandbox, "bad-alias.example", 403, "platform_deny");
}

#[test]
fn a_name_that_leads_to_the_host_is_refused() {
    let sandbox = sandbox_allowed_name("*.host.example");
    let listeners: Vec<TcpListener> = {
        let _inside = sandbox.testbed.network.host.enter().or_fail("entering the host");
        let listen = |port| TcpListener::bind(("::", port)).or_fail("listening on the host");
        [80, 443].map(listen).into()
    };
    let own = [HOST_UPLINK_V4.into(), HOST_UPLINK_V6.into()];
    for (i, address) in own.into_iter().enumerate() {
        let name = format!("n{i}.host.example");
        internet_of(&sandbox).zone.set_answer(&name, DnsAnswer::with_addresses(&[address]));
        assert_name_refused(&sandbox, &name, 403, "host_address");
    }
    let gateway = DnsAnswer::with_addresses(&[sandbox.addressing.gateway_v4().into()]);
    internet_of(&sandbox).zone.set_answer("gateway.host.example", gateway);
    let url = "https://gateway.host.example/";
    sandbox.curl(url).resolving_to(parse_ip("203.0.113.10")).run().assert_denied_by_alert();
    for listener in listeners {
        listener.set_nonblocking(true).or_fail("not blocking");
        let nobody = listener.accept().expect_err("nobody came to the host");
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    }
}

/// The gateway of the same host is treated like any other server: its listeners can be reached, and
/// the host's other listeners cannot.
#[test]
fn a_name_may_lead_to_the_gateway_of_the_same_host() {
    let gateway = "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"0.0.0.0:80\"\n";
    let stage = Testbed::with_names(&format!("{RESOLVER_CONFIG}{gateway}"));
    let sandbox = stage.add_sandbox();
    let other = {
        let _inside = stage.network.host.enter().or_fail("entering the host");
        TcpListener::bind(("0.0.0.0", HTTPS_PORT)).or_fail("listening on the host")
    };
    let name = "80-nobody.sandbox.test";
    sandbox.allow_only(&["*.sandbox.test"]);
    stage
        .named_internet()
        .zone
        .set_answer(name, DnsAnswer::with_addresses(&[HOST_UPLINK_V4.into()]));
    let to = parse_ip("203.0.113.10");
    let fetched = sandbox.curl(&format!("http://{name}/")).resolving_to(to).run();
    assert_eq!(fetched.status, 502, "{fetched:?}");
    assert_eq!(fetched.page_json()["sandboxId"], "nobody", "{fetched:?}");
    sandbox.curl(&format!("https://{name}/")).resolving_to(to).run().assert_denied_by_alert();
    sandbox.assert_name_denied(name, "host_address");
    other.set_nonblocking(true).or_fail("not blocking");
    let nobody = other.accept().expect_err("nobody came to the host's other listener");
    assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_name_that_does_not_resolve_is_refused() {
    let sandbox = sandbox_allowed_name("*.lost.example");
    assert_name_refused(&sandbox, "nowhere.lost.example", 502, "name_unresolved");
    let zone = &internet_of(&sandbox).zone;
    zone.set_answer("empty.lost.example", DnsAnswer::with_addresses(&[]));
    assert_name_refused(&sandbox, "empty.lost.example", 502, "name_unresolved");
    zone.set_answer("silent.lost.example", DnsAnswer::with_addresses(&[]).unanswered());
    assert_name_refused(&sandbox, "silent.lost.example", 502, "name_unresolved");
    zone.set_answer(
        "closed.lost.example",
        DnsAnswer::with_addresses(&[parse_ip(REFUSING_ADDRESS)]),
    );
    assert_name_refused(&sandbox, "closed.lost.example", 502, "unreachable");
}

#[test]
fn the_sandbox_asks_its_default_nameserver_and_no_other() {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("asked.example");
    sandbox.allow_only(&["asked.example"]);
    let ask = |server: &str| {
        let over_udp =
            dns_server::query_over_udp(&sandbox.namespace, parse_ip(server), "asked.example");
        let over_tcp =
            dns_server::query_over_tcp(&sandbox.namespace, parse_ip(server), "asked.example");
        [over_udp, over_tcp]
    };
    for answer in ask("8.8.8.8") {
        assert_eq!(answer.or_fail("asking 8.8.8.8"), [site.v4]);
    }
    assert!(ask("1.1.1.1").iter().all(Result::is_err));
    // Without domain rules, no nameserver is needed.
    sandbox.allow_only(&["203.0.113.10"]);
    assert!(ask("8.8.8.8").iter().all(Result::is_err));
    let network = |servers: &[&str]| {
        let (deny, allow) = (["0.0.0.0/0"], ["asked.example"]);
        json!({ "denyOut": deny, "allowOut": allow, "dnsServers": servers })
    };
    sandbox.apply_network(network(&["1.1.1.1", "2001:db8:1::1"]));
    for server in ["1.1.1.1", "2001:db8:1::1"] {
        for answer in ask(server) {
            assert_eq!(answer.or_fail(server), [site.v4]);
        }
    }
    assert!(ask("8.8.8.8").iter().all(Result::is_err));
    sandbox.apply_network(network(&[]));
    for server in ["8.8.8.8", "1.1.1.1"] {
        assert!(ask(server).iter().all(Result::is_err));
    }
    let page = fetch_page(&sandbox, "asked.example");
    assert!(site.served_page(&page), "the agent resolves all the same: {page}");
}

/// The agent queries a real dnsmasq, the sandbox the operator's nameserver.
#[test]
fn the_operator_chooses_resolver_and_nameserver() {
    let config = "default_nameserver = \"1.1.1.1\"\n[proxy]\nresolvers = [\"9.9.9.9:53\"]";
    let stage = Testbed::with_names(config);
    let sandbox = stage.add_sandbox();
    let internet = &stage.network.internet;
    let (one, other) = (stage.add_site("one.test"), stage.add_site("other.test"));
    internet.ip_batch("addr add 9.9.9.9/32 dev lo").or_fail("an address");
    let hosts = |site: &WebSite| format!("{} chosen.example\n", site.v4);
    let dnsmasq = ServerProcess::start_dnsmasq(internet, parse_ip("9.9.9.9"), &hosts(&one))
        .or_fail("dnsmasq");
    sandbox.allow_only(&["chosen.example"]);
    assert!(one.served_page(&fetch_page(&sandbox, "chosen.example")));
    dnsmasq.set_hosts(&hosts(&other)).or_fail("another address");
    let moved = || other.served_page(&fetch_page(&sandbox, "chosen.example")).then_some(());
    eventually("the name has moved", moved).or_fail("waiting");
    dnsmasq.set_hosts("169.254.169.254 chosen.example\n").or_fail("a bad address");
    let refused = || {
        let curl = sandbox.curl("https://chosen.example/").resolving_to(parse_ip("203.0.113.10"));
        (curl.run().exit_code != 0).then_some(())
    };
    eventually("the name is refused", refused).or_fail("waiting");
    assert_eq!(stage.named_internet().connection_count(parse_ip("169.254.169.254")), 0);
    dns_server::query_over_udp(&sandbox.namespace, parse_ip("1.1.1.1"), "one.test")
        .or_fail("its nameserver");
    let denied = dns_server::query_over_udp(&sandbox.namespace, parse_ip("8.8.8.8"), "one.test");
    assert!(denied.is_err(), "{denied:?}");
    let tcp = probe::connect(&sandbox.namespace, (parse_ip("203.0.113.10"), HTTPS_PORT).into());
    drop(tcp.or_fail("to the proxy"));
}
