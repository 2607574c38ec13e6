//! Behind proxies of the operator: whose word counts, and whose does not.

use std::fs;

use policy_tests::{
    gateway::{DOMAIN, PORT, recorder::Recorder},
    names::raw::{Ending, Talk},
    patience::eventually,
    stage::{Guest, OrFail as _, Shared},
    world::host::{HOST_V6, INTERNET_V4},
};
use serde_json::json;

/// The internet's IPv4 address, from which tests come, is a proxy's; its IPv6 address is anybody's.
static FORWARDED: Shared = Shared::with_names(
    "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\n\
     trusted_proxies = [\"192.0.2.2\", \"198.51.100.0/24\"]\n",
);

/// The same, where proxies carry connections and say whose in the PROXY protocol.
static CARRIED: Shared = Shared::with_names(
    "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\nhttps = \"[::]:443\"\n\
     trusted_proxies = [\"192.0.2.2\"]\nproxy_protocol = true\n",
);

const CLIENT: &str = "203.0.113.9";

#[track_caller]
fn recorded(stage: &Shared) -> (Guest, Recorder) {
    assert_eq!(INTERNET_V4.to_string(), "192.0.2.2", "as the stages' configurations say");
    let sandbox = stage.sandbox();
    sandbox.network(json!({}));
    let recorder = Recorder::start(&sandbox.inside, PORT).or_fail("the recorder");
    (sandbox, recorder)
}

/// What the service sees in `X-Forwarded-*` of a request: client, scheme and host.
#[track_caller]
fn forwarded(talk: &mut Talk) -> [String; 3] {
    let reply = talk.reply();
    assert_eq!(reply.status, 200, "{reply:?}");
    ["for", "proto", "host"].map(|name| {
        let name = format!("x-forwarded-{name}: ");
        let lines: Vec<_> = reply.body.lines().map(str::to_lowercase).collect();
        let mut values = lines.iter().filter_map(|line| line.strip_prefix(&name));
        let value = values.next().or_fail("a field").to_owned();
        assert_eq!(values.next(), None, "{name}: {reply:?}");
        value
    })
}

/// Whether a client is in the access log.
#[track_caller]
fn is_logged(sandbox: &Guest, client: &str, status: u16) {
    let file = sandbox.stage.agent().log_file();
    let logged = || {
        let log = fs::read_to_string(&file).unwrap_or_default();
        let (client, status) = (format!("client={client} "), format!("status={status}"));
        let mut lines = log.lines();
        lines.any(|line| line.contains(&client) && line.contains(&status)).then_some(())
    };
    eventually("the client is logged", logged).or_fail("reading the log");
}

const CLAIMS: &str = "X-Forwarded-For: 1.1.1.1, 203.0.113.9, 198.51.100.7\r\n\
                      X-Forwarded-Proto: https\r\nX-Forwarded-Host: app.example\r\n";

#[test]
fn a_trusted_proxy_is_believed() {
    let (sandbox, _recorder) = recorded(&FORWARDED);
    let mut talk = sandbox.ask("GET /", &format!("{CLAIMS}\r\n"));
    assert_eq!(forwarded(&mut talk), [CLIENT, "https", "app.example"]);
    is_logged(&sandbox, CLIENT, 200);
    let mut talk = sandbox.ask("GET /", "\r\n");
    assert_eq!(forwarded(&mut talk), ["192.0.2.2", "http", &*sandbox.host(PORT)]);
}

#[test]
fn others_are_not() {
    let (sandbox, recorder) = recorded(&FORWARDED);
    let mut talk = sandbox.stage.knock_at(&HOST_V6.to_string());
    talk.say(sandbox.request("GET /", &format!("{CLAIMS}\r\n")));
    let [client, scheme, host] = forwarded(&mut talk);
    assert_eq!((&*scheme, host), ("http", sandbox.host(PORT)));
    assert!(client.contains(':'), "{client}");
    let text = recorder.text();
    assert!(!text.contains(CLIENT) && !text.contains("app.example"), "{text}");
}

#[test]
fn a_proxy_may_have_changed_the_host() {
    let (sandbox, _recorder) = recorded(&FORWARDED);
    let asked = format!("X-Forwarded-Host: {}\r\n", sandbox.host(PORT));
    let request = format!("GET / HTTP/1.1\r\nHost: gateway.internal\r\n{asked}\r\n");
    let mut talk = sandbox.stage.knock();
    assert_eq!(forwarded(talk.say(&request))[2], sandbox.host(PORT));
    sandbox.stage.knock_at(&HOST_V6.to_string()).say(&request).reply().is_of_gateway(400);
}

/// A header of version 2 for a client of IPv4; the flags are those of its TLS, if any.
fn version_2(tls: Option<u8>) -> Vec<u8> {
    let mut rest = vec![203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x34, 0, 80];
    rest.extend(tls.into_iter().flat_map(|flags| [0x20, 0, 5, flags, 0, 0, 0, 0]));
    let length = u8::try_from(rest.len()).or_fail("a short header");
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..], &[length], &rest].concat()
}

#[test]
fn a_proxy_of_connections_says_whose_they_are() {
    let (sandbox, _recorder) = recorded(&CARRIED);
    let line = format!("PROXY TCP4 {CLIENT} 192.0.2.1 4711 80\r\n").into_bytes();
    for (header, scheme) in
        [(line, "http"), (version_2(None), "http"), (version_2(Some(1)), "https")]
    {
        let mut talk = sandbox.stage.knock();
        // Also where it comes in pieces, the request with the last.
        let (begin, end) = header.split_at(header.len() / 2);
        talk.say(begin).say([end, sandbox.request("GET /", "\r\n").as_bytes()].concat());
        assert_eq!(forwarded(&mut talk), [CLIENT, scheme, &*sandbox.host(PORT)]);
        // What the client says of itself is as worthless as ever.
        talk.say(sandbox.request("GET /", &format!("{CLAIMS}\r\n")));
        assert_eq!(forwarded(&mut talk), [CLIENT, scheme, &*sandbox.host(PORT)]);
    }
    is_logged(&sandbox, CLIENT, 200);
    let inside_tls = sandbox.fetch("https", "/").with(&["--haproxy-protocol"]).run();
    assert_eq!(inside_tls.status, 200, "{inside_tls:?}");
    assert!(inside_tls.text().to_lowercase().contains("x-forwarded-for: 192.0.2.2\r\n"));
}

#[test]
fn a_header_is_for_proxies_alone_and_they_always_send_one() {
    let (sandbox, recorder) = recorded(&CARRIED);
    let request = sandbox.request("GET /", "\r\n");
    assert_eq!(sandbox.stage.knock().say(&request).ending(), Ending::Reset);
    is_logged(&sandbox, "192.0.2.2", 400);
    assert_eq!(recorder.connections(), 0);
    let anybody = || sandbox.stage.knock_at(&HOST_V6.to_string());
    assert_eq!(anybody().say(&request).reply().status, 200);
    let forged = format!("PROXY TCP4 {CLIENT} 192.0.2.1 4711 80\r\n{request}");
    anybody().say(forged).reply().is_of_gateway(400);
    assert_eq!(
        anybody().say(version_2(None)).read_reply().ok().map(|reply| reply.status),
        Some(400)
    );
    assert!(!recorder.text().contains(CLIENT));
}

#[test]
fn wrong_networks_are_named() {
    for (line, complaint) in [
        ("trusted_proxies = [\"10.0.0.0/40\"]", "trusted_proxies[0]"),
        ("trusted_proxies = [\"192.0.2.1\", \"lb.example\"]", "trusted_proxies[1]: \"lb.example\""),
        ("trusted_proxies = [\"0.0.0.0/0\"]", "everyone"),
        ("proxy_protocol = true", "needs gateway.trusted_proxies"),
    ] {
        let config = format!("[gateway]\ndomain = {DOMAIN:?}\nhttp = \"[::]:80\"\n{line}\n");
        let stage = policy_tests::stage::Stage::without_agent(&config);
        let started = stage.agent_mut().start(&stage.world.host);
        let error = started.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains(complaint), "{line}: {error:?}");
    }
}
