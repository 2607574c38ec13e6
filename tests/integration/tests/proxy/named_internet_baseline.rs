//! The internet with names, and sandboxes without a restrictive policy: everything can be reached.
//! So what other tests find refused, the policy refuses.

use policy_testbed::{
    named_internet::{
        client_hello, dns_server, dns_zone::DnsAnswer, server_process::ServerProcess, web_pages,
    },
    test_servers::HTTPS_PORT,
    testbed::{OrFail as _, SharedTestbed, parse_ip},
    wait::eventually,
};

use super::socks_proxy::{SocksMode, SocksProxy};

static TESTBED: SharedTestbed = SharedTestbed::with_names("");

#[test]
fn curl_finds_a_site_by_its_name_and_by_a_forged_one() {
    let sandbox = TESTBED.add_sandbox();
    let (site, other) =
        (sandbox.testbed.add_site("found.example"), sandbox.testbed.add_site("other.example"));
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://found.example/");
        let fetched = sandbox.curl(&url).run();
        assert!(site.served_page(&fetched.page_json()), "{fetched:?}");
        sandbox.curl(&url).resolving_to(other.v4).run().assert_from(other.v4);
        let line = format!("{} found.example", other.v4);
        sandbox.curl(&url).with_hosts_line(&line).run().assert_from(other.v4);
    }
    sandbox.curl("https://1.1.1.1/").run().assert_from(parse_ip("1.1.1.1"));
    let visits = sandbox.testbed.named_internet().connection_count(other.v4);
    assert_eq!(visits, 4);
}

#[test]
fn dns_answers_over_udp_and_tcp_in_turns() {
    let sandbox = TESTBED.add_sandbox();
    let zone = &sandbox.testbed.named_internet().zone;
    let turns = ["1.1.1.1", "10.99.0.1"]
        .map(|address| DnsAnswer::with_addresses(&[parse_ip(address)]).with_ttl(0));
    zone.set_answer_sequence("turns.example", turns.to_vec());
    let server = parse_ip("8.8.8.8");
    let first =
        dns_server::query_over_udp(&sandbox.namespace, server, "turns.example").or_fail("UDP");
    let then =
        dns_server::query_over_tcp(&sandbox.namespace, server, "turns.example").or_fail("TCP");
    assert_eq!((first, then), (vec![parse_ip("1.1.1.1")], vec![parse_ip("10.99.0.1")]));
    let asked = zone.queries_for("turns.example");
    assert_eq!(asked.iter().map(|it| it.over_tcp).collect::<Vec<_>>(), [false, true]);
    assert_eq!(asked[0].client, sandbox.addresses()[0]);
}

#[test]
fn servers_from_debian_answer() {
    let stage = TESTBED.testbed();
    let sandbox = stage.add_sandbox();
    let site = stage.named_internet().reserve_site("nginx.example").or_fail("a place");
    let _nginx = ServerProcess::start_nginx(&stage.network.internet, stage.named_internet(), &site)
        .or_fail("nginx");
    let page = sandbox.curl("https://nginx.example/").with_arguments(&["-4"]).run();
    page.assert_from(site.v4);
    assert_eq!((page.version.as_str(), &page.page_json()["version"]), ("2", &"HTTP/2.0".into()));
    stage.network.internet.ip_batch("addr add 9.9.9.9/32 dev lo").or_fail("an address");
    let at = parse_ip("9.9.9.9");
    let dnsmasq =
        ServerProcess::start_dnsmasq(&stage.network.internet, at, "1.2.3.4 real.example\n");
    let dnsmasq = dnsmasq.or_fail("dnsmasq");
    let ask =
        || dns_server::query_over_udp(&sandbox.namespace, at, "real.example").or_fail("asking");
    assert_eq!(ask(), [parse_ip("1.2.3.4")]);
    dnsmasq.set_hosts("1.2.3.5 real.example\n").or_fail("changing it");
    eventually("the change", || (ask() == [parse_ip("1.2.3.5")]).then_some(())).or_fail("waiting");
}

#[test]
fn a_handmade_client_hello_is_valid() {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("hello.example");
    for (name, more) in
        [(Some(&b"hello.example"[..]), vec![]), (None, vec![client_hello::ech_extension(200)])]
    {
        let hello =
            client_hello::split_into_records(&client_hello::hello_message(name, &more), 100);
        let mut talk = sandbox.connect_raw(site.v4, HTTPS_PORT);
        talk.send(hello);
        client_hello::expect_handshake_record(talk.stream()).or_fail("the answer");
    }
    let config = sandbox.testbed.named_internet().authority.client_config().or_fail("a client");
    let mut talk = sandbox.connect_raw(site.v4, HTTPS_PORT);
    let answer =
        client_hello::fetch_over_tls(talk.stream(), config, "hello.example", |stream, hello| {
            client_hello::send_byte_by_byte(stream, &client_hello::resplit_records(&hello, 7))
        });
    assert!(answer.or_fail("visiting").contains("hello.example"));
}

#[test]
fn socks_proxies_carry_names_and_addresses() {
    let stage = TESTBED.testbed();
    let sandbox = stage.add_sandbox();
    let (names, internet) = (stage.named_internet(), &stage.network.internet);
    let site = stage.add_site("carried.example");
    let socks =
        SocksProxy::start(names, internet, "socks.example", SocksMode::WithPassword).or_fail("it");
    let (user, password) = super::socks_proxy::SOCKS_CREDENTIALS;
    let proxy = format!("socks5h://{user}:{password}@{}:1080", socks.site.v4);
    sandbox
        .curl("http://carried.example/")
        .with_arguments(&["-x", &proxy])
        .run()
        .assert_from(site.v4);
    let wrong = format!("socks5h://{user}:wrong@{}:1080", socks.site.v4);
    assert_eq!(
        sandbox.curl("http://carried.example/").with_arguments(&["-x", &wrong]).run().exit_code,
        97
    );
    assert_eq!(socks.logged_requests(), ["login right", "name carried.example:80", "login wrong"]);
    let at = names.reserve_site("micro.example").or_fail("a place").v4;
    let _micro = ServerProcess::start_microsocks(internet, (at, 1080).into()).or_fail("microsocks");
    let proxy = format!("socks5h://{at}:1080");
    let url = format!("http://{}/", site.v4);
    sandbox.curl(&url).with_arguments(&["-x", &proxy]).run().assert_from(site.v4);
}

#[test]
fn large_bodies_are_whole() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.testbed.add_site("large.example");
    let fetched = sandbox.curl("https://large.example/bytes/1000000").run();
    let body: Vec<u8> = web_pages::random_blocks(1_000_000).flatten().collect();
    assert!(fetched.body == body);
}
