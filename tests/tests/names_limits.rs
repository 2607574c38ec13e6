//! What a sandbox may take of the proxy, and a proxy that has nothing left.

use std::{
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use policy_tests::{
    names::{Site, hello, raw::Ending},
    patience::eventually,
    server::{HTTP, HTTPS},
    stage::{Guest, OrFail as _, RESOLVERS, Shared, Stage},
    world::command,
};

static STAGE: Shared = Shared::with_names(RESOLVERS);
static FEW: Shared =
    Shared::with_names("[proxy]\nresolvers = [\"8.8.8.8:53\"]\nmax_connections_per_sandbox = 4\n");

/// A TLS connection to a site that has been let through.
#[track_caller]
fn open(sandbox: &Guest, site: &Site) -> TcpStream {
    let mut talk = sandbox.talk(site.v4, HTTPS);
    talk.say(hello::of(&site.name));
    hello::is_answered(talk.stream()).or_fail("an answer");
    talk.stream().try_clone().or_fail("the stream")
}

#[test]
fn a_sandbox_has_so_many_connections_and_another_its_own() {
    let (sandbox, other) = (FEW.sandbox(), FEW.sandbox());
    let site = sandbox.stage.site("few.example");
    for each in [&sandbox, &other] {
        each.may_only_reach(&["few.example"]);
    }
    let held: Vec<_> = (0..4).map(|_| open(&sandbox, &site)).collect();
    for port in [HTTP, HTTPS] {
        let request = "GET / HTTP/1.1\r\nHost: few.example\r\n\r\n";
        let mut talk = sandbox.talk(site.v4, port);
        let ending =
            talk.say(if port == HTTPS { hello::of(&site.name) } else { request.into() }).ending();
        match port {
            HTTPS => talk.is_alert(hello::INTERNAL_ERROR),
            _ => assert_eq!(ending, Ending::Reset),
        }
        sandbox.event("the refusal", |event| {
            event["reason"] == "too_many_connections" && event["destinationPort"] == port
        });
    }
    let _others: Vec<_> = (0..4).map(|_| open(&other, &site)).collect();
    drop(held);
    let room = || (sandbox.curl("https://few.example/").run().exit == 0).then_some(());
    eventually("there is room again", room).or_fail("waiting");
}

#[test]
fn who_does_not_say_what_it_wants_is_refused_in_time() {
    let sandbox = STAGE.sandbox();
    let site = sandbox.stage.site("silent.example");
    sandbox.may_only_reach(&["silent.example"]);
    let hello = hello::of("silent.example");
    let begin = Instant::now();
    let silent = [
        (HTTPS, &b""[..]),
        (HTTPS, &hello[..hello.len() - 1]),
        (HTTP, b""),
        (HTTP, b"GET / HTTP/1.1\r\nHost: silent.example\r\n"),
    ];
    let mut talks: Vec<_> = silent
        .iter()
        .map(|(port, bytes)| {
            let mut talk = sandbox.talk(site.v4, *port);
            talk.say(bytes);
            let limit = Some(Duration::from_secs(20));
            talk.stream().set_read_timeout(limit).or_fail("a timeout");
            talk
        })
        .collect();
    // Who has said it may take longer.
    let mut patient = open(&sandbox, &site);
    for (talk, (port, bytes)) in talks.iter_mut().zip(silent) {
        let spoke_tls = port == HTTPS && !bytes.is_empty();
        let expected = if spoke_tls { Ending::Closed } else { Ending::Reset };
        assert_eq!(talk.ending(), expected, "{} bytes to port {port}", bytes.len());
    }
    let took = begin.elapsed();
    // Not at once; that it ends at all is in time, since reading does not wait for long.
    assert!(took > Duration::from_secs(5), "{took:?}");
    sandbox.event("the refusal", |event| event["reason"] == "proxy_timeout");
    patient.set_nonblocking(true).or_fail("not blocking");
    let mut rest = [0; 65_536];
    while std::io::Read::read(&mut patient, &mut rest).is_ok_and(|length| length > 0) {}
    let idle = std::io::Read::read(&mut patient, &mut rest).expect_err("it is open");
    assert_eq!(idle.kind(), std::io::ErrorKind::WouldBlock);
    for address in site.addresses() {
        assert!(sandbox.stage.names().visits(address) <= 1, "only the patient one came");
    }
}

#[test]
fn out_of_descriptors_it_refuses_and_recovers() {
    let stage = Stage::with_names(RESOLVERS);
    let sandbox = stage.sandbox();
    stage.site("scarce.example");
    sandbox.may_only_reach(&["scarce.example", "8.8.8.8"]);
    assert_eq!(sandbox.curl("https://scarce.example/").run().exit, 0);
    let pid = stage.agent().pid().or_fail("the agent's process");
    let limit = |soft: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]);
        command::run(&mut prlimit).or_fail("setting a limit");
    };
    limit("16");
    for _ in 0..50 {
        let fetched = sandbox.curl("https://scarce.example/").with(&["--max-time", "1"]).run();
        assert_ne!(fetched.exit, 0, "{fetched:?}");
    }
    // What needs no proxy does not notice.
    sandbox.reaches("8.8.8.8");
    limit("1024");
    let works = || (sandbox.curl("https://scarce.example/").run().exit == 0).then_some(());
    eventually("it works again", works).or_fail("waiting");
    assert_eq!(stage.agent().pid(), Some(pid));
    assert!(stage.agent().is_healthy());
    assert_eq!(sandbox.curl("http://scarce.example/").run().status, 200);
}
