//! Updates of the allowed names, and an agent that is not running.

use std::process::Command;

use policy_testbed::{
    agent,
    named_internet::{WebSite, raw_http::RawHttpConnection},
    network::{NetworkNamespace, command},
    test_servers::{HTTP_PORT, HTTPS_PORT},
    testbed::{OrFail as _, RESOLVER_CONFIG, SharedTestbed, TestSandbox, Testbed},
};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

/// A TLS connection to a site on which the test has exchanged data.
struct TlsSession {
    tls: rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>,
    name: String,
}

impl TlsSession {
    #[track_caller]
    fn connect(sandbox: &TestSandbox, site: &WebSite) -> Self {
        let stream =
            policy_testbed::probe::connect(&sandbox.namespace, (site.v4, HTTPS_PORT).into());
        let config = sandbox.testbed.named_internet().authority.client_config().or_fail("a client");
        let name = site.name.clone().try_into().or_fail("a name");
        let client = rustls::ClientConnection::new(config.into(), name).or_fail("a client");
        let tls = rustls::StreamOwned::new(client, stream.or_fail("connecting"));
        let mut secure = Self { tls, name: site.name.clone() };
        assert!(secure.is_answered(), "a new connection to {}", site.name);
        secure
    }

    /// Returns whether another request gets a response.
    fn is_answered(&mut self) -> bool {
        use std::io::{Read as _, Write as _};
        let request = format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", self.name);
        let mut answer = [0; 4096];
        self.tls.write_all(request.as_bytes()).is_ok()
            && self.tls.read(&mut answer).is_ok_and(|length| length > 0)
    }
}

/// An HTTP connection to a site on which the test has exchanged data.
#[track_caller]
fn open_http_session(sandbox: &TestSandbox, site: &WebSite) -> RawHttpConnection {
    let mut talk = sandbox.connect_raw(site.v4, HTTP_PORT);
    assert_eq!(talk.send_get(&site.name).read_response().status, 200);
    talk
}

/// Asserts that this connection gets no more responses.
#[track_caller]
fn assert_closed(talk: &mut RawHttpConnection, site: &WebSite) {
    let reply = talk.send_get(&site.name).try_read_response();
    assert!(reply.is_err(), "{reply:?}");
}

fn allow_sites(sandbox: &TestSandbox, sites: &[&WebSite]) {
    let names: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
    sandbox.allow_only(&names);
}

#[track_caller]
fn assert_reachable(sandbox: &TestSandbox, site: &WebSite) {
    for scheme in ["http", "https"] {
        let fetched = sandbox.curl(&format!("{scheme}://{}/", site.name)).run();
        assert!(site.served_page(&fetched.page_json()), "{scheme}: {fetched:?}");
    }
}

#[test]
fn removing_a_name_closes_its_connections_and_no_others() {
    let sandbox = TESTBED.add_sandbox();
    let (stays, goes) =
        (sandbox.testbed.add_site("stays.example"), sandbox.testbed.add_site("goes.example"));
    allow_sites(&sandbox, &[&stays, &goes]);
    let (mut secure_stays, mut secure_goes) =
        (TlsSession::connect(&sandbox, &stays), TlsSession::connect(&sandbox, &goes));
    let (mut plain_stays, mut plain_goes) =
        (open_http_session(&sandbox, &stays), open_http_session(&sandbox, &goes));
    allow_sites(&sandbox, &[&stays]);
    assert!(secure_stays.is_answered() && !secure_goes.is_answered());
    assert_eq!(plain_stays.send_get(&stays.name).read_response().status, 200);
    assert_closed(&mut plain_goes, &goes);
    // The same through PUT …/network, for a connection that has used both sites.
    allow_sites(&sandbox, &[&stays, &goes]);
    assert_eq!(plain_stays.send_get(&goes.name).read_response().status, 200);
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["stays.example"] });
    assert_eq!(sandbox.testbed.request("PUT", &path, &network).status, 204);
    assert_closed(&mut plain_stays, &goes);
    assert!(secure_stays.is_answered());
    sandbox.curl("https://goes.example/").run().assert_denied_by_alert();
}

#[test]
fn names_are_added_at_once() {
    let sandbox = TESTBED.add_sandbox();
    let (one, other) =
        (sandbox.testbed.add_site("one.example"), sandbox.testbed.add_site("two.example"));
    sandbox.allow_only(&[]);
    let curl = sandbox.curl("https://one.example/").resolving_to(one.v4);
    assert_eq!(curl.run().exit_code, policy_testbed::named_internet::curl::EXIT_CONNECTION_REFUSED);
    allow_sites(&sandbox, &[&one]);
    assert_reachable(&sandbox, &one);
    let mut secure = TlsSession::connect(&sandbox, &one);
    sandbox.curl("https://two.example/").run().assert_denied_by_alert();
    allow_sites(&sandbox, &[&one, &other]);
    assert_reachable(&sandbox, &other);
    assert!(secure.is_answered());
}

#[test]
fn without_names_nothing_goes_through_the_proxy_any_more() {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("removed.example");
    allow_sites(&sandbox, &[&site]);
    let (mut secure, mut plain) =
        (TlsSession::connect(&sandbox, &site), open_http_session(&sandbox, &site));
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1"] }));
    assert!(!secure.is_answered());
    assert_closed(&mut plain, &site);
    let curl = sandbox.curl("https://removed.example/").resolving_to(site.v4);
    assert_eq!(curl.run().exit_code, policy_testbed::named_internet::curl::EXIT_CONNECTION_REFUSED);
    assert_eq!(sandbox.curl("https://1.1.1.1/").run().exit_code, 0);
    sandbox.apply_network(json!({}));
    let open = sandbox.curl("https://removed.example/").resolving_to(site.v4).run();
    assert_eq!(open.page_json()["peer"], sandbox.addresses()[0].to_string());
}

#[test]
fn a_sandbox_that_is_deleted_has_no_connections() {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("deleted.example");
    allow_sites(&sandbox, &[&site]);
    let (mut secure, mut plain) =
        (TlsSession::connect(&sandbox, &site), open_http_session(&sandbox, &site));
    sandbox.delete();
    assert!(!secure.is_answered());
    assert_closed(&mut plain, &site);
}

#[test]
fn without_an_agent_names_are_refused_and_addresses_work() {
    let stage = Testbed::with_names(RESOLVER_CONFIG);
    let sandbox = stage.add_sandbox();
    let site = stage.add_site("away.example");
    sandbox.allow_only(&["away.example", "8.8.8.8", "1.1.1.1"]);
    let mut secure = TlsSession::connect(&sandbox, &site);
    stage.kill_agent();
    assert!(!secure.is_answered());
    for scheme in ["http", "https"] {
        for to in site.addresses() {
            let curl = sandbox.curl(&format!("{scheme}://away.example/")).resolving_to(to);
            let refused = curl.run();
            assert_eq!(
                refused.exit_code,
                policy_testbed::named_internet::curl::EXIT_CONNECTION_REFUSED,
                "{refused:?}"
            );
        }
        assert_eq!(sandbox.curl(&format!("{scheme}://1.1.1.1/")).run().exit_code, 0);
    }
    sandbox.assert_reaches("8.8.8.8");
    for address in site.addresses() {
        assert_eq!(
            stage.named_internet().connection_count(address),
            usize::from(is_only_connection(&site, address))
        );
    }
    stage.restart_agent();
    assert_reachable(&sandbox, &site);
    sandbox.curl("https://elsewhere.test/").resolving_to(site.v4).run().assert_denied_by_alert();
}

/// Returns whether the earlier connection used this address.
fn is_only_connection(site: &WebSite, address: std::net::IpAddr) -> bool {
    address == site.v6
}

#[test]
fn cleanup_takes_the_routing_rules_away() {
    let stage = Testbed::with_names(RESOLVER_CONFIG);
    let sandbox = stage.add_sandbox();
    let slot = policy_testbed::network::namespaced_sandbox::NamespacedSandbox::build("tidy")
        .or_fail("building a slot");
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["some.example"] });
    sandbox.apply_network(network.clone());
    let spec = slot.sandbox_spec(&json!({ "network": network }));
    assert_eq!(stage.request("PUT", "/agent/v1/sandboxes/tidy", &spec).status, 200);
    let namespaces = [&stage.network.host, &slot.namespace];
    for namespace in namespaces {
        assert_eq!(redirect_rules_present(namespace), [true; 4], "{}", namespace.name());
    }
    stage.stop_agent();
    let binary = agent::agent_binary().or_fail("the binary");
    let cleanup = stage.network.host.command(&binary.to_string_lossy());
    let mut cleanup = cleanup.or_fail("entering the host");
    cleanup.args(["cleanup", "--config"]).arg(stage.agent().config_path());
    cleanup.arg("--socket").arg(stage.agent().socket_path());
    let output = cleanup.output().or_fail("cleaning up");
    assert!(output.status.success(), "{output:?}");
    for namespace in namespaces {
        assert_eq!(redirect_rules_present(namespace), [false; 4], "{}", namespace.name());
    }
}

/// Returns whether a namespace has the rule and the route of the redirect, for each family.
#[track_caller]
fn redirect_rules_present(namespace: &NetworkNamespace) -> [bool; 4] {
    let table = policy_common::redirect::REDIRECT_ROUTE_TABLE.to_string();
    let ip = |family: &str, arguments: &[&str]| {
        let mut ip = Command::new("ip");
        ip.args(["-n", namespace.name(), family]).args(arguments);
        // `ip` fails for a table that was never used, which means that it is empty.
        command::run(&mut ip).unwrap_or_default()
    };
    let rule = |family| ip(family, &["rule", "show"]).contains(&format!("lookup {table}"));
    let route = |family| !ip(family, &["route", "show", "table", &table]).trim().is_empty();
    [rule("-4"), rule("-6"), route("-4"), route("-6")]
}
