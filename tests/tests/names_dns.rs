//! Where names lead: the agent resolves them itself, and dials no address that the floor closes.
//! And which DNS servers a sandbox may ask.

use std::{
    io,
    net::{IpAddr, TcpListener},
};

use hickory_proto::rr::RecordType;
use policy_tests::{
    names::{Names, Site, daemon::Daemon, dns, zone::Answer},
    patience::eventually,
    probe,
    server::HTTPS,
    stage::{Guest, OrFail as _, RESOLVERS, Shared, Stage, ip},
    world::host::{HOST_V4, HOST_V6},
};
use serde_json::{Value, json};

static STAGE: Shared = Shared::with_names(RESOLVERS);

/// An address of no server, which refuses connections.
const CLOSED: &str = "198.51.100.9";
/// An address to which there is no way.
const UNREACHABLE_V6: &str = "2001:db8:dead::1";
/// Addresses that answer nothing at all.
const SILENT: [&str; 2] = ["2001:db8:dead:beef::1", "192.0.2.77"];

/// A sandbox that may ask for `name`.
#[track_caller]
fn asking_for(name: &str) -> Guest {
    let sandbox = STAGE.sandbox();
    sandbox.may_only_reach(&[name]);
    sandbox
}

fn names(sandbox: &Guest) -> &Names {
    sandbox.stage.names()
}

/// Fetches over TLS, towards an address that says nothing.
#[track_caller]
fn page(sandbox: &Guest, name: &str) -> Value {
    let fetched = sandbox.curl(&format!("https://{name}/")).misled_to(ip("203.0.113.10")).run();
    assert_eq!(fetched.exit, 0, "{name}: {fetched:?}");
    fetched.page()
}

/// Both ways of asking for a name are refused with this reason.
#[track_caller]
fn is_refused(sandbox: &Guest, name: &str, status: u64, reason: &str) {
    let to = ip("203.0.113.10");
    let https = sandbox.curl(&format!("https://{name}/")).misled_to(to).run();
    if status == 502 {
        https.has_failed()
    } else {
        https.is_denied()
    }
    let http = sandbox.curl(&format!("http://{name}/")).misled_to(to).run();
    http.is_refused(status, reason);
    sandbox.was_denied(name, reason);
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
    let sandbox = asking_for("*.private.example");
    for (i, address) in private.iter().enumerate() {
        let name = format!("n{i}.private.example");
        names(&sandbox).zone.set(&name, Answer::of(&[ip(address)]));
        is_refused(&sandbox, &name, 403, "platform_deny");
        assert_eq!(names(&sandbox).visits(ip(address)), 0, "{address}");
    }
    // Also when the sandbox's own lists allow the address.
    let allowed = ["n0.private.example", "169.254.169.254", "0.0.0.0/0"];
    let other = STAGE.sandbox();
    other.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": &allowed[..2] }));
    is_refused(&other, "n0.private.example", 403, "platform_deny");
    assert_eq!(names(&sandbox).visits(ip("169.254.169.254")), 0);
}

#[test]
fn a_name_that_turns_to_a_private_address_later_is_refused_from_then_on() {
    let sandbox = asking_for("*.rebinding.example");
    let site = sandbox.stage.site("site.rebinding.example");
    let good = Answer::of(&[site.v4]);
    for (ttl, name) in [(0, "zero.rebinding.example"), (1, "one.rebinding.example")] {
        let bad = Answer::of(&[ip("169.254.169.254")]).with_ttl(ttl);
        names(&sandbox).zone.set_turns(name, vec![good.clone().with_ttl(ttl), bad]);
        assert!(site.shows(&page(&sandbox, name)));
        let url = format!("https://{name}/");
        let refused = || {
            let fetched = sandbox.curl(&url).misled_to(ip("203.0.113.10")).run();
            (fetched.exit != 0).then(|| fetched.is_denied())
        };
        eventually("the new answer counts", refused).or_fail(name);
        sandbox.was_denied(name, "platform_deny");
    }
    assert_eq!(names(&sandbox).visits(ip("169.254.169.254")), 0);
}

#[test]
fn of_several_addresses_those_that_are_closed_are_passed_over() {
    let sandbox = asking_for("*.several.example");
    let site = sandbox.stage.site("site.several.example");
    let zone = &names(&sandbox).zone;
    let metadata = ip("169.254.169.254");
    let silence = "route add blackhole 2001:db8:dead:beef::/64\nroute add blackhole 192.0.2.77";
    sandbox.stage.world.internet.ip(silence).or_fail("addresses of nobody");
    let neighbour = "neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev uplink nud permanent";
    sandbox.stage.world.host.ip(neighbour).or_fail("a way to them");
    let cases: [(&str, Vec<IpAddr>); 8] = [
        ("first-bad.several.example", vec![metadata, site.v4]),
        ("last-bad.several.example", vec![site.v4, metadata]),
        ("six-bad.several.example", vec![ip("fd99::1"), site.v4]),
        ("four-bad.several.example", vec![ip("10.99.0.1"), site.v6]),
        ("refusing.several.example", vec![ip(CLOSED), site.v4]),
        ("no-route.several.example", vec![ip(UNREACHABLE_V6), site.v4]),
        ("silent-six.several.example", vec![ip(SILENT[0]), site.v4]),
        ("silent-four.several.example", vec![ip(SILENT[1]), site.v4]),
    ];
    for (name, addresses) in cases {
        zone.set(name, Answer::of(&addresses));
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{name}/");
            let fetched = sandbox.curl(&url).misled_to(ip("203.0.113.10")).run();
            assert!(site.shows(&fetched.page()), "{url}: {fetched:?}");
        }
    }
    for closed in ["169.254.169.254", "fd99::1", "10.99.0.1"] {
        assert_eq!(names(&sandbox).visits(ip(closed)), 0, "{closed}");
    }
}

#[test]
fn one_family_is_enough() {
    let sandbox = asking_for("*.family.example");
    let site = sandbox.stage.site("site.family.example");
    let zone = &names(&sandbox).zone;
    let both = Answer::of(&site.addresses());
    let cases = [
        ("four.family.example", Answer::of(&[site.v4]), site.v4),
        ("six.family.example", Answer::of(&[site.v6]), site.v6),
        ("six-fails.family.example", both.clone().failing_for(RecordType::AAAA), site.v4),
        ("four-fails.family.example", both.clone().failing_for(RecordType::A), site.v6),
        ("alias.family.example", both.clone().through(&["a.example", "b.example"]), site.v4),
        ("tcp.family.example", both.by_tcp_only(), site.v4),
    ];
    for (name, answer, expected) in cases {
        zone.set(name, answer);
        let page = page(&sandbox, name);
        let family = |address: IpAddr| address.is_ipv4();
        let server = page["server"].as_str().and_then(|text| text.parse().ok());
        let server: IpAddr = server.or_fail(name);
        assert!(site.addresses().contains(&server), "{name}: {page}");
        if !name.starts_with("alias") && !name.starts_with("tcp") {
            assert_eq!(family(server), family(expected), "{name}: {page}");
        }
    }
    assert!(zone.asked("tcp.family.example").iter().any(|asked| asked.over_tcp));
}

/// What an alias is called does not matter, only what was asked for.
#[test]
fn an_alias_is_not_judged_but_where_it_leads_is() {
    let sandbox = asking_for("alias.example");
    let site = sandbox.stage.site("target.alias.test");
    let zone = &names(&sandbox).zone;
    zone.set("alias.example", Answer::of(&[site.v4]).with_ttl(0).through(&["elsewhere.test"]));
    assert!(site.shows(&page(&sandbox, "alias.example")));
    let sandbox = asking_for("bad-alias.example");
    let private = Answer::of(&[ip("10.99.0.1")]).through(&["internal.test"]);
    names(&sandbox).zone.set("bad-alias.example", private);
    is_refused(&sandbox, "bad-alias.example", 403, "platform_deny");
}

#[test]
fn a_name_that_leads_to_the_host_is_refused() {
    let sandbox = asking_for("*.host.example");
    let listeners: Vec<TcpListener> = {
        let _inside = sandbox.stage.world.host.enter().or_fail("entering the host");
        let listen = |port| TcpListener::bind(("::", port)).or_fail("listening on the host");
        [80, 443].map(listen).into()
    };
    let own = [HOST_V4.into(), HOST_V6.into()];
    for (i, address) in own.into_iter().enumerate() {
        let name = format!("n{i}.host.example");
        names(&sandbox).zone.set(&name, Answer::of(&[address]));
        is_refused(&sandbox, &name, 403, "host_address");
    }
    let gateway = Answer::of(&[sandbox.identity.gateway_v4().into()]);
    names(&sandbox).zone.set("gateway.host.example", gateway);
    let url = "https://gateway.host.example/";
    sandbox.curl(url).misled_to(ip("203.0.113.10")).run().is_denied();
    for listener in listeners {
        listener.set_nonblocking(true).or_fail("not blocking");
        let nobody = listener.accept().expect_err("nobody came to the host");
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    }
}

/// The gateway of the same host is nothing else than anybody's: its listeners can be reached, and the
/// host's other ones cannot.
#[test]
fn a_name_may_lead_to_the_gateway_of_the_same_host() {
    let gateway = "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"0.0.0.0:80\"\n";
    let stage = Stage::with_names(&format!("{RESOLVERS}{gateway}"));
    let sandbox = stage.sandbox();
    let other = {
        let _inside = stage.world.host.enter().or_fail("entering the host");
        TcpListener::bind(("0.0.0.0", HTTPS)).or_fail("listening on the host")
    };
    let name = "80-nobody.sandbox.test";
    sandbox.may_only_reach(&["*.sandbox.test"]);
    stage.names().zone.set(name, Answer::of(&[HOST_V4.into()]));
    let to = ip("203.0.113.10");
    let fetched = sandbox.curl(&format!("http://{name}/")).misled_to(to).run();
    assert_eq!(fetched.status, 502, "{fetched:?}");
    assert_eq!(fetched.page()["sandboxId"], "nobody", "{fetched:?}");
    sandbox.curl(&format!("https://{name}/")).misled_to(to).run().is_denied();
    sandbox.was_denied(name, "host_address");
    other.set_nonblocking(true).or_fail("not blocking");
    let nobody = other.accept().expect_err("nobody came to the host's other listener");
    assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_name_that_does_not_resolve_is_refused() {
    let sandbox = asking_for("*.lost.example");
    is_refused(&sandbox, "nowhere.lost.example", 502, "name_unresolved");
    let zone = &names(&sandbox).zone;
    zone.set("empty.lost.example", Answer::of(&[]));
    is_refused(&sandbox, "empty.lost.example", 502, "name_unresolved");
    zone.set("silent.lost.example", Answer::of(&[]).silent());
    is_refused(&sandbox, "silent.lost.example", 502, "name_unresolved");
    zone.set("closed.lost.example", Answer::of(&[ip(CLOSED)]));
    is_refused(&sandbox, "closed.lost.example", 502, "unreachable");
}

#[test]
fn the_sandbox_asks_its_default_nameserver_and_no_other() {
    let sandbox = STAGE.sandbox();
    let site = sandbox.stage.site("asked.example");
    sandbox.may_only_reach(&["asked.example"]);
    let ask = |server: &str| {
        let over_udp = dns::ask_over_udp(&sandbox.inside, ip(server), "asked.example");
        let over_tcp = dns::ask_over_tcp(&sandbox.inside, ip(server), "asked.example");
        [over_udp, over_tcp]
    };
    for answer in ask("8.8.8.8") {
        assert_eq!(answer.or_fail("asking 8.8.8.8"), [site.v4]);
    }
    assert!(ask("1.1.1.1").iter().all(Result::is_err));
    // Without names there is no need for a nameserver.
    sandbox.may_only_reach(&["203.0.113.10"]);
    assert!(ask("8.8.8.8").iter().all(Result::is_err));
    let network = |servers: &[&str]| {
        let (deny, allow) = (["0.0.0.0/0"], ["asked.example"]);
        json!({ "denyOut": deny, "allowOut": allow, "dnsServers": servers })
    };
    sandbox.network(network(&["1.1.1.1", "2001:db8:1::1"]));
    for server in ["1.1.1.1", "2001:db8:1::1"] {
        for answer in ask(server) {
            assert_eq!(answer.or_fail(server), [site.v4]);
        }
    }
    assert!(ask("8.8.8.8").iter().all(Result::is_err));
    sandbox.network(network(&[]));
    for server in ["8.8.8.8", "1.1.1.1"] {
        assert!(ask(server).iter().all(Result::is_err));
    }
    let page = page(&sandbox, "asked.example");
    assert!(site.shows(&page), "the agent resolves all the same: {page}");
}

/// The agent asks a real dnsmasq, the sandbox the operator's nameserver.
#[test]
fn the_operator_chooses_resolver_and_nameserver() {
    let config = "default_nameserver = \"1.1.1.1\"\n[proxy]\nresolvers = [\"9.9.9.9:53\"]";
    let stage = Stage::with_names(config);
    let sandbox = stage.sandbox();
    let internet = &stage.world.internet;
    let (one, other) = (stage.site("one.test"), stage.site("other.test"));
    internet.ip("addr add 9.9.9.9/32 dev lo").or_fail("an address");
    let hosts = |site: &Site| format!("{} chosen.example\n", site.v4);
    let dnsmasq = Daemon::dnsmasq(internet, ip("9.9.9.9"), &hosts(&one)).or_fail("dnsmasq");
    sandbox.may_only_reach(&["chosen.example"]);
    assert!(one.shows(&page(&sandbox, "chosen.example")));
    dnsmasq.set_hosts(&hosts(&other)).or_fail("another address");
    let moved = || other.shows(&page(&sandbox, "chosen.example")).then_some(());
    eventually("the name has moved", moved).or_fail("waiting");
    dnsmasq.set_hosts("169.254.169.254 chosen.example\n").or_fail("a bad address");
    let refused = || {
        let curl = sandbox.curl("https://chosen.example/").misled_to(ip("203.0.113.10"));
        (curl.run().exit != 0).then_some(())
    };
    eventually("the name is refused", refused).or_fail("waiting");
    assert_eq!(stage.names().visits(ip("169.254.169.254")), 0);
    dns::ask_over_udp(&sandbox.inside, ip("1.1.1.1"), "one.test").or_fail("its nameserver");
    let denied = dns::ask_over_udp(&sandbox.inside, ip("8.8.8.8"), "one.test");
    assert!(denied.is_err(), "{denied:?}");
    let tcp = probe::connect(&sandbox.inside, (ip("203.0.113.10"), HTTPS).into());
    drop(tcp.or_fail("to the proxy"));
}
