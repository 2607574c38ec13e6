//! Real clients: their requests reach the server with the header, whatever they speak.

use std::path::Path;

use hyper::Method;
use policy_testbed::{
    named_internet::client_program::client_command,
    probe,
    test_servers::HTTPS_PORT,
    testbed::{OrFail as _, TestSandbox},
};
use serde_json::json;
use tungstenite::Message;

use super::super::socks_proxy::{SOCKS_PORT, SocksMode, SocksProxy};
use super::{
    CREDENTIAL, RuleScenario, TESTBED, authorization,
    trusting_client::{Http2Client, authority_file, connect_tls, trusting_config, trusting_curl},
};

/// Debian's Python, for which the package with gRPC is.
const PYTHON: &str = "/usr/bin/python3";
const NODE: &str = "/usr/bin/node";

/// Fetches a URL, and prints the status and the body.
const NODE_FETCH: &str = "fetch(process.argv[1]).then(async answer => \
                          console.log(answer.status, (await answer.text()).trim()))";
const PYTHON_FETCH: &str = "import sys, urllib.request\n\
                            answer = urllib.request.urlopen(sys.argv[1])\n\
                            print(answer.status, answer.read().decode().strip())";
const PYTHON_GRPC: &str = "import sys, grpc\n\
    credentials = grpc.ssl_channel_credentials(open(sys.argv[2], 'rb').read())\n\
    channel = grpc.secure_channel(sys.argv[1], credentials)\n\
    print(channel.unary_unary('/test.Echo/Unary')(b'hello', timeout=30))";

/// Runs a program in a sandbox, with a variable that names the authority to trust.
#[track_caller]
fn run(sandbox: &TestSandbox, program: &str, arguments: &[&str], variable: &str) -> String {
    let files = sandbox.testbed.named_internet().client_files();
    let command = client_command(&sandbox.namespace, files, Path::new(program));
    let mut command = command.or_fail("a command");
    command.args(arguments).env(variable, authority_file(sandbox));
    let output = command.output().or_fail(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn curl_gets_the_header_set_in_both_versions_and_does_not_see_it() {
    let scenario = RuleScenario::new("curl.rules.example");
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2"), ("--no-alpn", "1.1")] {
        let fetched = scenario.curl("/").with_arguments(&[option, "-v"]).run();
        assert_eq!((fetched.status, &*fetched.version), (200, version), "{option}: {fetched:?}");
        assert!(!fetched.text().contains(CREDENTIAL) && !fetched.stderr.contains(CREDENTIAL));
    }
    let requests = scenario.origin.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(request.values("authorization"), [CREDENTIAL], "{request:?}");
    }
}

#[test]
fn nodes_fetch_trusts_the_authority_by_its_variable() {
    let scenario = RuleScenario::new("node.rules.example");
    let arguments = ["-e", NODE_FETCH, &*scenario.url("/")];
    let printed = run(&scenario.sandbox, NODE, &arguments, "NODE_EXTRA_CA_CERTS");
    assert_eq!(printed, "200 an answer");
    assert_eq!(scenario.origin.only_request().values("authorization"), [CREDENTIAL]);
}

#[test]
fn python_trusts_the_authority_by_its_variable() {
    let scenario = RuleScenario::new("python.rules.example");
    let arguments = ["-c", PYTHON_FETCH, &*scenario.url("/")];
    assert_eq!(run(&scenario.sandbox, PYTHON, &arguments, "SSL_CERT_FILE"), "200 an answer");
    assert_eq!(scenario.origin.only_request().values("authorization"), [CREDENTIAL]);
}

#[test]
fn a_grpc_call_is_answered() {
    let scenario = RuleScenario::new("grpc.rules.example");
    let authority = authority_file(&scenario.sandbox);
    let target = format!("{}:{HTTPS_PORT}", scenario.name());
    let arguments = ["-c", PYTHON_GRPC, &*target, &*authority.to_string_lossy()];
    assert_eq!(run(&scenario.sandbox, PYTHON, &arguments, "SSL_CERT_FILE"), "b'hello'");
    let request = scenario.origin.only_request();
    assert_eq!(request.version, "HTTP/2.0");
    assert_eq!(request.values("authorization"), [CREDENTIAL]);
    assert_eq!(request.values("te"), ["trailers"]);
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let scenario = RuleScenario::new("bodies.rules.example");
    let bytes = "0123456789abcdef".repeat(500_000);
    let files = scenario.sandbox.testbed.named_internet().client_files();
    let path = files.join("bodies.rules.example");
    std::fs::write(&path, &bytes).or_fail("writing a file");
    let data = format!("@{}", path.display());
    for option in ["--http1.1", "--http2"] {
        let sent = scenario.curl("/echo").with_arguments(&[option, "--data-binary", &data]).run();
        assert_eq!(sent.status, 200, "{option}: {}", sent.stderr);
        assert!(sent.text() == bytes, "{option}: {} bytes", sent.body.len());
    }
    assert_eq!(scenario.origin.requests()[0].values("expect"), ["100-continue"]);
}

/// A sandbox with a rule for a site that speaks HTTP/1.1 only.
#[track_caller]
fn sandbox_with_site(name: &str) -> (TestSandbox, policy_testbed::named_internet::WebSite) {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site(name);
    sandbox.apply_network(json!({
        "allowOut": [name], "denyOut": ["0.0.0.0/0"], "rules": { name: authorization(CREDENTIAL) },
    }));
    (sandbox, site)
}

#[test]
fn a_server_without_http2_is_spoken_to_in_its_own_version() {
    let (sandbox, site) = sandbox_with_site("old.rules.example");
    let fetched = trusting_curl(&sandbox, "https://old.rules.example/x").run();
    assert_eq!((fetched.status, &*fetched.version), (200, "1.1"), "{fetched:?}");
    let page = fetched.page_json();
    assert!(site.served_page(&page), "{page}");
    assert_eq!(page["sni"], "old.rules.example");
    let slowly = trusting_curl(&sandbox, "https://old.rules.example/slowly").run();
    assert_eq!(slowly.text(), "part 1\npart 2\npart 3\npart 4\npart 5\n");
}

#[test]
fn a_web_socket_echoes() {
    let (sandbox, site) = sandbox_with_site("socket.rules.example");
    let stream = probe::connect(&sandbox.namespace, (site.v4, HTTPS_PORT).into());
    let name = site.name.clone().try_into().or_fail("a name");
    let config = trusting_config(&sandbox, &[]);
    let client = rustls::ClientConnection::new(config.into(), name).or_fail("a client");
    let tls = rustls::StreamOwned::new(client, stream.or_fail("connecting"));
    let (mut socket, _) =
        tungstenite::client("wss://socket.rules.example/socket", tls).or_fail("shaking hands");
    for message in [Message::text("a text"), Message::binary(vec![7; 100_000])] {
        socket.send(message.clone()).or_fail("sending");
        assert_eq!(socket.read().or_fail("an echo"), message);
    }
}

#[test]
fn a_web_socket_opens_over_http2() {
    let scenario = RuleScenario::new("http2-socket.rules.example");
    let mut client = Http2Client::connect(&scenario);
    assert_eq!(client.get(&scenario.url("/")).0.status(), 200);
    assert_eq!(client.echo_over_connect(&scenario.url("/socket"), b"anything"), b"anything");
    let opened = &scenario.origin.requests()[1];
    assert_eq!((&opened.method, &*opened.path), (&Method::CONNECT, "/socket"));
    assert_eq!(opened.values("authorization"), [CREDENTIAL]);
}

#[test]
fn requests_go_through_the_egress_proxy_with_the_header() {
    let scenario = RuleScenario::new("tunnelled.rules.example");
    let stage = &scenario.sandbox.testbed;
    let (names, internet) = (stage.named_internet(), &stage.network.internet);
    let name = "socks.tunnelled.rules.example";
    let proxy = SocksProxy::start(names, internet, name, SocksMode::NoAuth);
    let proxy = proxy.or_fail("starting a SOCKS5 proxy");
    scenario.sandbox.apply_network(json!({
        "allowOut": [scenario.name()], "denyOut": ["0.0.0.0/0"],
        "rules": { scenario.name(): authorization(CREDENTIAL) },
        "egressProxy": { "address": format!("{name}:{SOCKS_PORT}") },
    }));
    assert_eq!(scenario.curl("/").run().status, 200);
    let tunnelled = format!("name {}:{HTTPS_PORT}", scenario.name());
    assert_eq!(proxy.logged_requests(), [tunnelled]);
    assert_eq!(scenario.origin.only_request().values("authorization"), [CREDENTIAL]);
}

#[test]
fn another_protocol_is_upgraded_to() {
    use std::io::{Read as _, Write as _};
    let scenario = RuleScenario::new("upgrade.rules.example");
    let mut tls = connect_tls(&scenario);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        scenario.name()
    );
    tls.write_all(request.as_bytes()).or_fail("sending");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tls.read_exact(&mut byte).or_fail("a response");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    tls.write_all(b"anything").or_fail("sending");
    let mut echo = [0; 8];
    tls.read_exact(&mut echo).or_fail("an echo");
    assert_eq!(&echo, b"anything");
    assert_eq!(scenario.origin.only_request().values("authorization"), [CREDENTIAL]);
}

#[test]
fn requests_of_one_connection_each_get_the_header() {
    let scenario = RuleScenario::new("many.rules.example");
    let mut client = Http2Client::connect(&scenario);
    for number in 0..20 {
        let (head, body) = client.get(&scenario.url(&format!("/{number}")));
        assert_eq!((head.status().as_u16(), &*body), (200, "an answer\n"));
    }
    let requests = scenario.origin.requests();
    assert_eq!(requests.len(), 20);
    for (number, request) in requests.iter().enumerate() {
        assert_eq!(request.path, format!("/{number}"));
        assert_eq!(request.values("authorization"), [CREDENTIAL]);
    }
}

#[test]
fn a_wildcard_rule_sets_the_header_below_it_and_the_exact_name_precedes() {
    let scenario = RuleScenario::new("api.wild.rules.example");
    scenario.apply_rules(&json!({
        "*.rules.example": authorization("of rules.example"),
        "*.wild.rules.example": authorization("of wild.rules.example"),
    }));
    assert_eq!(scenario.curl("/").run().status, 200);
    scenario.apply_rules(&json!({
        "*.wild.rules.example": authorization("of wild.rules.example"),
        "API.wild.rules.example": authorization("of the name"),
    }));
    assert_eq!(scenario.curl("/").run().status, 200);
    let requests = scenario.origin.requests();
    assert_eq!(requests[0].values("authorization"), ["of wild.rules.example"]);
    assert_eq!(requests[1].values("authorization"), ["of the name"]);
}
