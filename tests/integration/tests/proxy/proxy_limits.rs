//! The limits of the proxy per sandbox, and a proxy without free descriptors.

use std::{
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use policy_testbed::{
    named_internet::{WebSite, client_hello, raw_http::CloseKind},
    network::command,
    test_servers::{HTTP_PORT, HTTPS_PORT},
    testbed::{OrFail as _, RESOLVER_CONFIG, SharedTestbed, TestSandbox, Testbed},
    wait::eventually,
};

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);
static LIMITED_TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[proxy]\nresolvers = [\"8.8.8.8:53\"]\nmax_connections_per_sandbox = 4\n",
);

/// A TLS connection to a site that the proxy has allowed.
#[track_caller]
fn open_tls(sandbox: &TestSandbox, site: &WebSite) -> TcpStream {
    let mut talk = sandbox.connect_raw(site.v4, HTTPS_PORT);
    talk.send(client_hello::hello_records(&site.name));
    client_hello::expect_handshake_record(talk.stream()).or_fail("an answer");
    talk.stream().try_clone().or_fail("the stream")
}

#[test]
fn a_sandbox_has_so_many_connections_and_another_its_own() {
    let (sandbox, other) = (LIMITED_TESTBED.add_sandbox(), LIMITED_TESTBED.add_sandbox());
    let site = sandbox.testbed.add_site("few.example");
    for each in [&sandbox, &other] {
        each.allow_only(&["few.example"]);
    }
    let held: Vec<_> = (0..4).map(|_| open_tls(&sandbox, &site)).collect();
    for port in [HTTP_PORT, HTTPS_PORT] {
        if port == HTTPS_PORT {
            let mut talk = sandbox.connect_raw(site.v4, port);
            let _ = talk.send(client_hello::hello_records(&site.name)).read_to_close();
            talk.assert_alert(client_hello::ALERT_INTERNAL_ERROR);
        } else {
            let request = "GET / HTTP/1.1\r\nHost: few.example\r\n\r\n";
            assert_eq!(sandbox.close_after(site.v4, port, request), CloseKind::Reset);
        }
        sandbox.wait_for_event("the refusal", |event| {
            event["reason"] == "too_many_connections" && event["destinationPort"] == port
        });
    }
    let _others: Vec<_> = (0..4).map(|_| open_tls(&other, &site)).collect();
    drop(held);
    let room = || (sandbox.curl("https://few.example/").run().exit_code == 0).then_some(());
    eventually("there is room again", room).or_fail("waiting");
}

#[test]
fn a_silent_client_is_refused_in_time() {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("silent.example");
    sandbox.allow_only(&["silent.example"]);
    let hello = client_hello::hello_records("silent.example");
    let begin = Instant::now();
    let silent = [
        (HTTPS_PORT, &b""[..]),
        (HTTPS_PORT, &hello[..hello.len() - 1]),
        (HTTP_PORT, b""),
        (HTTP_PORT, b"GET / HTTP/1.1\r\nHost: silent.example\r\n"),
    ];
    let mut talks: Vec<_> = silent
        .iter()
        .map(|(port, bytes)| {
            let mut talk = sandbox.connect_raw(site.v4, *port);
            talk.send(bytes);
            let limit = Some(Duration::from_secs(20));
            talk.stream().set_read_timeout(limit).or_fail("a timeout");
            talk
        })
        .collect();
    // A client that has sent its ClientHello may take longer.
    let mut patient = open_tls(&sandbox, &site);
    for (talk, (port, bytes)) in talks.iter_mut().zip(silent) {
        let spoke_tls = port == HTTPS_PORT && !bytes.is_empty();
        let expected = if spoke_tls { CloseKind::Clean } else { CloseKind::Reset };
        assert_eq!(talk.read_to_close(), expected, "{} bytes to port {port}", bytes.len());
    }
    let took = begin.elapsed();
    // The connection does not end at once. That it ends in time is certain, since reads have a
    // timeout.
    assert!(took > Duration::from_secs(5), "{took:?}");
    sandbox.wait_for_event("the refusal", |event| event["reason"] == "proxy_timeout");
    patient.set_nonblocking(true).or_fail("not blocking");
    let mut rest = [0; 65_536];
    while std::io::Read::read(&mut patient, &mut rest).is_ok_and(|length| length > 0) {}
    let idle = std::io::Read::read(&mut patient, &mut rest).expect_err("it is open");
    assert_eq!(idle.kind(), std::io::ErrorKind::WouldBlock);
    for address in site.addresses() {
        assert!(
            sandbox.testbed.named_internet().connection_count(address) <= 1,
            "only the patient one came"
        );
    }
}

#[test]
fn out_of_descriptors_it_refuses_and_recovers() {
    let stage = Testbed::with_names(RESOLVER_CONFIG);
    let sandbox = stage.add_sandbox();
    stage.add_site("scarce.example");
    sandbox.allow_only(&["scarce.example", "8.8.8.8"]);
    assert_eq!(sandbox.curl("https://scarce.example/").run().exit_code, 0);
    let pid = stage.agent().pid().or_fail("the agent's process");
    let limit = |soft: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]);
        command::run(&mut prlimit).or_fail("setting a limit");
    };
    limit("16");
    for _ in 0..50 {
        let fetched =
            sandbox.curl("https://scarce.example/").with_arguments(&["--max-time", "1"]).run();
        assert_ne!(fetched.exit_code, 0, "{fetched:?}");
    }
    // Traffic that does not use the proxy is unaffected.
    sandbox.assert_reaches("8.8.8.8");
    limit("1024");
    let works = || (sandbox.curl("https://scarce.example/").run().exit_code == 0).then_some(());
    eventually("it works again", works).or_fail("waiting");
    assert_eq!(stage.agent().pid(), Some(pid));
    assert!(stage.agent().is_healthy());
    assert_eq!(sandbox.curl("http://scarce.example/").run().status, 200);
}
