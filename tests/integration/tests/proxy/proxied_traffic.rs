//! Traffic that must keep working through the egress proxy: bytes, closes, resets and backpressure
//! are those of a direct connection.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use policy_testbed::{
    named_internet::{
        WebSite, client_hello,
        raw_http::CloseKind,
        server_process::ServerProcess,
        web_pages::{self, LARGE_BODY_BYTES, LARGEST_BODY_BYTES},
    },
    probe,
    test_servers::{HTTP_PORT, HTTPS_PORT},
    testbed::{OrFail as _, RESOLVER_CONFIG, SharedTestbed, TestSandbox, parse_ip},
    wait::{WAIT_LIMIT, eventually},
};
use tungstenite::Message;

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

/// A sandbox that may reach one name, and the site of that name.
#[track_caller]
fn sandbox_with_site(name: &str) -> (TestSandbox, WebSite) {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site(name);
    sandbox.allow_only(&[name]);
    (sandbox, site)
}

/// The same with the test itself as the server on port 443.
struct ManualServerScenario {
    sandbox: TestSandbox,
    listener: TcpListener,
    hello: Vec<u8>,
}

impl ManualServerScenario {
    #[track_caller]
    fn new(name: &str) -> Self {
        let sandbox = TESTBED.add_sandbox();
        let (_, listener) = sandbox.testbed.add_manual_site(name, HTTPS_PORT);
        sandbox.allow_only(&[name]);
        let hello = client_hello::hello_records(name);
        Self { sandbox, listener, hello }
    }

    /// Opens a connection and returns both ends. The ClientHello has been forwarded.
    #[track_caller]
    fn open_connection(&self) -> (TcpStream, TcpStream) {
        let to = SocketAddr::new(parse_ip("203.0.113.10"), HTTPS_PORT);
        let mut client = probe::connect(&self.sandbox.namespace, to).or_fail("connecting");
        client.write_all(&self.hello).or_fail("sending the hello");
        let (mut server, _) = self.listener.accept().or_fail("accepting");
        server.set_read_timeout(Some(*WAIT_LIMIT)).or_fail("a timeout");
        let mut hello = vec![0; self.hello.len()];
        server.read_exact(&mut hello).or_fail("the hello");
        assert_eq!(hello, self.hello, "the server sees what the client sent");
        (client, server)
    }
}

fn assert_transfers(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
    from.write_all(text).or_fail("sending");
    let mut back = vec![0; text.len()];
    to.read_exact(&mut back).or_fail("receiving");
    assert_eq!(back, text);
}

#[test]
fn curl_keeps_its_connection_and_speaks_old_http() {
    let (sandbox, site) = sandbox_with_site("kept.example");
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://kept.example/");
        let twice = sandbox.curl(&url).with_arguments(&[&url]).run();
        assert_eq!((twice.status, twice.connections), (200, 0), "the second needs none: {twice:?}");
        let old = sandbox.curl(&url).with_arguments(&["--http1.0"]).run();
        assert!(site.served_page(&old.page_json()), "{old:?}");
        let expected = sandbox.curl(&format!("{scheme}://kept.example/digest"));
        let expected =
            expected.with_arguments(&["-H", "Expect: 100-continue", "-d", "some bytes"]).run();
        assert_eq!(expected.page_json()["length"], 10, "{expected:?}");
        let head = sandbox.curl(&url).with_arguments(&["--head"]).run();
        assert_eq!((head.status, head.exit_code), (200, 0), "{head:?}");
        let slow = sandbox.curl(&format!("{scheme}://kept.example/slowly")).run();
        assert_eq!(slow.text(), "part 1\npart 2\npart 3\npart 4\npart 5\n");
    }
}

#[test]
fn http2_over_tls_and_a_real_nginx() {
    let stage = TESTBED.testbed();
    let sandbox = stage.add_sandbox();
    let site = stage.named_internet().reserve_site("nginx.example").or_fail("a place");
    let _nginx = ServerProcess::start_nginx(&stage.network.internet, stage.named_internet(), &site)
        .or_fail("nginx");
    sandbox.allow_only(&["nginx.example"]);
    let fetched = sandbox.curl("https://nginx.example/").run();
    fetched.assert_from(site.v4);
    assert_eq!(fetched.version, "2");
    let fetched = sandbox.curl("http://nginx.example/").run();
    fetched.assert_from(site.v4);
    assert_eq!(fetched.version, "1.1");
}

#[test]
fn web_sockets_on_both_ports() {
    let (sandbox, site) = sandbox_with_site("socket.example");
    let to = |port| SocketAddr::new(site.v4, port);
    let plain = probe::connect(&sandbox.namespace, to(HTTP_PORT)).or_fail("connecting");
    let (mut socket, _) =
        tungstenite::client("ws://socket.example/socket", plain).or_fail("shaking hands");
    assert_web_socket_echoes(&mut socket);
    let plain = probe::connect(&sandbox.namespace, to(HTTPS_PORT)).or_fail("connecting");
    let config = sandbox.testbed.named_internet().authority.client_config().or_fail("a client");
    let name = "socket.example".try_into().or_fail("a name");
    let client = rustls::ClientConnection::new(config.into(), name).or_fail("a client");
    let tls = rustls::StreamOwned::new(client, plain);
    let (mut socket, _) =
        tungstenite::client("wss://socket.example/socket", tls).or_fail("shaking hands");
    assert_web_socket_echoes(&mut socket);
}

#[track_caller]
fn assert_web_socket_echoes<S: io::Read + io::Write>(socket: &mut tungstenite::WebSocket<S>) {
    for size in [1, 100, 70_000] {
        let sent = Message::binary(web_pages::random_blocks(size).flatten().collect::<Vec<u8>>());
        socket.send(sent.clone()).or_fail("sending");
        assert_eq!(socket.read().or_fail("receiving"), sent);
    }
    socket.close(None).or_fail("closing");
    while socket.read().is_ok() {}
}

#[test]
fn large_downloads_arrive_whole() {
    let (sandbox, _) = sandbox_with_site("download.example");
    for (scheme, length) in [("http", LARGEST_BODY_BYTES), ("https", LARGE_BODY_BYTES)] {
        let fetched = sandbox.curl(&format!("{scheme}://download.example/bytes/{length}")).run();
        assert_eq!((fetched.exit_code, fetched.body.len()), (0, length), "{}", fetched.stderr);
        let mut body = &fetched.body[..];
        for block in web_pages::random_blocks(length) {
            let (begin, rest) = body.split_at(block.len());
            assert!(begin == block, "{scheme}");
            body = rest;
        }
    }
}

#[test]
fn large_uploads_arrive_whole() {
    const CHUNKED: &[&str] = &["-H", "Transfer-Encoding: chunked"];
    let (sandbox, _) = sandbox_with_site("upload.example");
    let file = sandbox.testbed.named_internet().client_files().join("upload");
    let data = file.to_string_lossy().into_owned();
    for (scheme, length, more) in [
        ("http", LARGEST_BODY_BYTES, &[][..]),
        ("http", LARGE_BODY_BYTES, CHUNKED),
        ("https", LARGE_BODY_BYTES, &[]),
        ("https", LARGE_BODY_BYTES, CHUNKED),
    ] {
        let body: Vec<u8> = web_pages::random_blocks(length).flatten().collect();
        std::fs::write(&file, body).or_fail("writing a file");
        let curl = sandbox.curl(&format!("{scheme}://upload.example/digest"));
        let fetched = curl.with_arguments(&["-X", "POST", "-T", &data]).with_arguments(more).run();
        let expected = web_pages::random_blocks_digest(length);
        assert_eq!(fetched.page_json()["sha256"], expected, "{}", fetched.stderr);
    }
    std::fs::remove_file(&file).or_fail("removing a file");
}

#[test]
fn each_half_closes_by_itself() {
    let own = ManualServerScenario::new("half.example");
    let (mut client, mut server) = own.open_connection();
    client.write_all(b"all I have to say").or_fail("sending");
    client.shutdown(Shutdown::Write).or_fail("closing one half");
    let mut text = String::new();
    server.read_to_string(&mut text).or_fail("reading to the end");
    assert_eq!(text, "all I have to say");
    for _ in 0..3 {
        assert_transfers(&mut server, &mut client, b"and still I answer");
    }
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).or_fail("the end"), 0);
    let (mut client, mut server) = own.open_connection();
    server.shutdown(Shutdown::Write).or_fail("closing the other half");
    assert_eq!(client.read(&mut [0; 1]).or_fail("the end"), 0);
    assert_transfers(&mut client, &mut server, b"and still I ask");
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).or_fail("the end"), 0);
}

#[test]
fn a_request_after_which_nothing_is_sent_is_answered() {
    let (sandbox, site) = sandbox_with_site("half-http.example");
    let mut talk = sandbox.connect_raw(site.v4, HTTP_PORT);
    talk.send("GET /slowly HTTP/1.1\r\nHost: half-http.example\r\nConnection: close\r\n\r\n");
    talk.stream().shutdown(Shutdown::Write).or_fail("closing one half");
    let reply = talk.read_response();
    assert!(reply.body.contains("part 5"), "{reply:?}");
    assert_eq!(talk.read_to_close(), CloseKind::Clean);
}

#[test]
fn a_reset_goes_through_both_ways() {
    let own = ManualServerScenario::new("reset.example");
    let (mut client, server) = own.open_connection();
    reset_connection(server);
    let error = client.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let (client, mut server) = own.open_connection();
    reset_connection(client);
    let error = server.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

fn reset_connection(stream: TcpStream) {
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).or_fail("lingering");
}

#[test]
fn a_slow_reader_holds_its_sender_back() {
    let own = ManualServerScenario::new("slow.example");
    let before = agent_memory_bytes(&own.sandbox);
    for downwards in [false, true] {
        let (client, server) = own.open_connection();
        let (mut sender, mut reader) = if downwards { (server, client) } else { (client, server) };
        sender.set_write_timeout(Some(Duration::from_millis(500))).or_fail("a timeout");
        let block = vec![7; 65_536];
        let mut sent = 0;
        // All buffers on the path hold less than this.
        while sent < 200_000_000 {
            match sender.write(&block) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("sending: {error}"),
            }
        }
        assert!(sent < 200_000_000, "the sender is never held back");
        assert!(
            agent_memory_bytes(&own.sandbox) < before + 64_000_000,
            "the agent holds what is not read"
        );
        sender.shutdown(Shutdown::Write).or_fail("closing");
        let arrived = io::copy(&mut reader, &mut io::sink()).or_fail("reading at last");
        assert_eq!(arrived, sent as u64);
    }
}

/// The agent's memory in bytes.
pub(super) fn agent_memory_bytes(sandbox: &TestSandbox) -> usize {
    let pid = sandbox.testbed.agent().pid().or_fail("the agent's process");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).or_fail("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).or_fail("its memory");
    let kilobytes = line.split_whitespace().next().and_then(|text| text.parse::<usize>().ok());
    kilobytes.or_fail("a number") * 1024
}

#[test]
fn an_idle_connection_stays() {
    let own = ManualServerScenario::new("idle.example");
    let (mut client, mut server) = own.open_connection();
    let (sandbox, site) = sandbox_with_site("idle-http.example");
    let mut talk = sandbox.connect_raw(site.v4, HTTP_PORT);
    let reply = talk.send_get("idle-http.example").read_response();
    assert!(site.served_page(&reply.page_json()), "{reply:?}");
    // More than the client may take to send its request, but no more than necessary.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(11) {
        thread::sleep(Duration::from_millis(100));
    }
    assert_transfers(&mut client, &mut server, b"still there?");
    assert_transfers(&mut server, &mut client, b"still there");
    let reply = talk.send_get("idle-http.example").read_response();
    assert!(site.served_page(&reply.page_json()), "{reply:?}");
}

#[test]
fn a_hundred_connections_at_a_time() {
    let own = ManualServerScenario::new("many.example");
    let mut pairs: Vec<_> = (0..100).map(|_| own.open_connection()).collect();
    for (i, (client, server)) in pairs.iter_mut().enumerate() {
        assert_transfers(client, server, format!("connection {i}").as_bytes());
        assert_transfers(server, client, format!("answer {i}").as_bytes());
    }
    let metrics = own.sandbox.testbed.request("GET", "/metrics", &serde_json::Value::Null).body;
    let active = metrics.lines().find_map(|line| {
        line.strip_prefix("policy_proxy_active_connections ")?.parse::<u64>().ok()
    });
    assert!(active.is_some_and(|active| active >= 100), "{metrics}");
    drop(pairs);
    let id = &own.sandbox.id;
    let closed = || {
        let metrics = own.sandbox.testbed.request("GET", "/metrics", &serde_json::Value::Null).body;
        let counted = format!("policy_proxy_connections_total{{sandbox=\"{id}\"");
        let counted = metrics.lines().find(|line| line.starts_with(&counted))?;
        counted.ends_with(" 100").then_some(())
    };
    eventually("all are counted", closed).or_fail("the metrics");
}

#[test]
fn a_port_that_was_just_used_can_be_used_again() {
    let own = ManualServerScenario::new("reused.example");
    let to = SocketAddr::new(parse_ip("203.0.113.10"), HTTPS_PORT);
    for _ in 0..5 {
        let connect = || {
            let _inside = own.sandbox.namespace.enter().or_fail("entering");
            let kind = socket2::Type::STREAM;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None);
            let socket = socket.or_fail("a socket");
            socket.set_reuse_address(true).or_fail("reusing");
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], 45_678)).into()).or_fail("binding");
            match socket.connect_timeout(&to.into(), *WAIT_LIMIT) {
                // The client's end of the previous connection waits for its last acknowledgement.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => None,
                connected => Some(connected.map(|()| TcpStream::from(socket))),
            }
        };
        let client = eventually("the port is free inside", connect).or_fail("waiting");
        let mut client = client.or_fail("connecting");
        client.set_read_timeout(Some(*WAIT_LIMIT)).or_fail("a timeout");
        client.write_all(&own.hello).or_fail("the hello");
        let (mut server, _) = own.listener.accept().or_fail("accepting");
        server.read_exact(&mut vec![0; own.hello.len()]).or_fail("the hello");
        assert_transfers(&mut server, &mut client, b"hello");
        // Closes the server's end first, so that the proxy's end waits in TIME_WAIT.
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).or_fail("the end"), 0);
    }
}

#[test]
fn what_is_allowed_by_address_goes_past_the_proxy() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&["some.example", "1.1.1.1", "2606:4700:4700::1111", "8.8.8.8"]);
    for (url, own) in [("https://1.1.1.1/", 0), ("https://[2606:4700:4700::1111]/", 1)] {
        let fetched = sandbox.curl(url).run();
        let expected = sandbox.addresses()[own].to_string();
        assert_eq!(fetched.page_json()["peer"], expected, "{url}: {fetched:?}");
        let http = sandbox.curl(&url.replace("https", "http")).run();
        assert_eq!(http.page_json()["peer"], expected, "{url}: {http:?}");
    }
    let mut ssh =
        probe::connect(&sandbox.namespace, (parse_ip("8.8.8.8"), 22).into()).or_fail("SSH");
    let mut greeting = [0; 8];
    ssh.read_exact(&mut greeting).or_fail("the greeting");
    assert_eq!(&greeting, b"SSH-2.0-");
}
