//! The internet with names, and sandboxes that no policy stops: what later tests find refused, the
//! policy refuses.

use policy_tests::{
    names::{
        daemon::Daemon,
        dns, hello, pages,
        socks::{Kind, Socks},
        zone::Answer,
    },
    patience::eventually,
    server::HTTPS,
    stage::{OrFail as _, Shared, ip},
};

static STAGE: Shared = Shared::with_names("");

#[test]
fn curl_finds_a_site_by_its_name_and_by_a_forged_one() {
    let sandbox = STAGE.sandbox();
    let (site, other) = (sandbox.stage.site("found.example"), sandbox.stage.site("other.example"));
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://found.example/");
        let fetched = sandbox.curl(&url).run();
        assert!(site.shows(&fetched.page()), "{fetched:?}");
        sandbox.curl(&url).misled_to(other.v4).run().is_from(other.v4);
        let line = format!("{} found.example", other.v4);
        sandbox.curl(&url).with_hosts(&line).run().is_from(other.v4);
    }
    sandbox.curl("https://1.1.1.1/").run().is_from(ip("1.1.1.1"));
    let visits = sandbox.stage.names().visits(other.v4);
    assert_eq!(visits, 4);
}

#[test]
fn dns_answers_over_udp_and_tcp_in_turns() {
    let sandbox = STAGE.sandbox();
    let zone = &sandbox.stage.names().zone;
    let turns = ["1.1.1.1", "10.99.0.1"].map(|address| Answer::of(&[ip(address)]).with_ttl(0));
    zone.set_turns("turns.example", turns.to_vec());
    let server = ip("8.8.8.8");
    let first = dns::ask_over_udp(&sandbox.inside, server, "turns.example").or_fail("UDP");
    let then = dns::ask_over_tcp(&sandbox.inside, server, "turns.example").or_fail("TCP");
    assert_eq!((first, then), (vec![ip("1.1.1.1")], vec![ip("10.99.0.1")]));
    let asked = zone.asked("turns.example");
    assert_eq!(asked.iter().map(|it| it.over_tcp).collect::<Vec<_>>(), [false, true]);
    assert_eq!(asked[0].by, sandbox.addresses()[0]);
}

#[test]
fn servers_from_debian_answer() {
    let stage = STAGE.stage();
    let sandbox = stage.sandbox();
    let site = stage.names().place("nginx.example").or_fail("a place");
    let _nginx = Daemon::nginx(&stage.world.internet, stage.names(), &site).or_fail("nginx");
    let page = sandbox.curl("https://nginx.example/").with(&["-4"]).run();
    page.is_from(site.v4);
    assert_eq!((page.version.as_str(), &page.page()["version"]), ("2", &"HTTP/2.0".into()));
    stage.world.internet.ip("addr add 9.9.9.9/32 dev lo").or_fail("an address");
    let at = ip("9.9.9.9");
    let dnsmasq = Daemon::dnsmasq(&stage.world.internet, at, "1.2.3.4 real.example\n");
    let dnsmasq = dnsmasq.or_fail("dnsmasq");
    let ask = || dns::ask_over_udp(&sandbox.inside, at, "real.example").or_fail("asking");
    assert_eq!(ask(), [ip("1.2.3.4")]);
    dnsmasq.set_hosts("1.2.3.5 real.example\n").or_fail("changing it");
    eventually("the change", || (ask() == [ip("1.2.3.5")]).then_some(())).or_fail("waiting");
}

#[test]
fn a_hello_written_by_hand_is_one() {
    let sandbox = STAGE.sandbox();
    let site = sandbox.stage.site("hello.example");
    for (name, more) in
        [(Some(&b"hello.example"[..]), vec![]), (None, vec![hello::encrypted_inner(200)])]
    {
        let hello = hello::in_records(&hello::asking_for(name, &more), 100);
        let mut talk = sandbox.talk(site.v4, HTTPS);
        talk.say(hello);
        hello::is_answered(talk.stream()).or_fail("the answer");
    }
    let config = sandbox.stage.names().authority.client().or_fail("a client");
    let mut talk = sandbox.talk(site.v4, HTTPS);
    let answer = hello::visit(talk.stream(), config, "hello.example", |stream, hello| {
        hello::byte_by_byte(stream, &hello::cut_anew(&hello, 7))
    });
    assert!(answer.or_fail("visiting").contains("hello.example"));
}

#[test]
fn socks_proxies_carry_names_and_addresses() {
    let stage = STAGE.stage();
    let sandbox = stage.sandbox();
    let (names, internet) = (stage.names(), &stage.world.internet);
    let site = stage.site("carried.example");
    let socks = Socks::start(names, internet, "socks.example", Kind::WithPassword).or_fail("it");
    let (user, password) = policy_tests::names::socks::CREDENTIALS;
    let proxy = format!("socks5h://{user}:{password}@{}:1080", socks.site.v4);
    sandbox.curl("http://carried.example/").with(&["-x", &proxy]).run().is_from(site.v4);
    let wrong = format!("socks5h://{user}:wrong@{}:1080", socks.site.v4);
    assert_eq!(sandbox.curl("http://carried.example/").with(&["-x", &wrong]).run().exit, 97);
    assert_eq!(socks.log(), ["login right", "name carried.example:80", "login wrong"]);
    let at = names.place("micro.example").or_fail("a place").v4;
    let _micro = Daemon::microsocks(internet, (at, 1080).into()).or_fail("microsocks");
    let proxy = format!("socks5h://{at}:1080");
    let url = format!("http://{}/", site.v4);
    sandbox.curl(&url).with(&["-x", &proxy]).run().is_from(site.v4);
}

#[test]
fn large_bodies_are_whole() {
    let sandbox = STAGE.sandbox();
    sandbox.stage.site("large.example");
    let fetched = sandbox.curl("https://large.example/bytes/1000000").run();
    let body: Vec<u8> = pages::noise(1_000_000).flatten().collect();
    assert!(fetched.body == body);
}
