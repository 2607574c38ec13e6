//! Changes of what names are allowed, and an agent that is away.

use std::process::Command;

use policy_tests::{
    agent,
    names::{Site, raw::Talk},
    server::{HTTP, HTTPS},
    stage::{Guest, OrFail as _, RESOLVERS, Shared, Stage},
    world::{Namespace, command},
};
use serde_json::json;

static STAGE: Shared = Shared::with_names(RESOLVERS);

/// A connection over which the test has spoken TLS with a site.
struct Secure {
    tls: rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>,
    name: String,
}

impl Secure {
    #[track_caller]
    fn to(sandbox: &Guest, site: &Site) -> Self {
        let stream = policy_tests::probe::connect(&sandbox.inside, (site.v4, HTTPS).into());
        let config = sandbox.stage.names().authority.client().or_fail("a client");
        let name = site.name.clone().try_into().or_fail("a name");
        let client = rustls::ClientConnection::new(config.into(), name).or_fail("a client");
        let tls = rustls::StreamOwned::new(client, stream.or_fail("connecting"));
        let mut secure = Self { tls, name: site.name.clone() };
        assert!(secure.is_alive(), "a new connection to {}", site.name);
        secure
    }

    /// Whether another request is answered.
    fn is_alive(&mut self) -> bool {
        use std::io::{Read as _, Write as _};
        let request = format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", self.name);
        let mut answer = [0; 4096];
        self.tls.write_all(request.as_bytes()).is_ok()
            && self.tls.read(&mut answer).is_ok_and(|length| length > 0)
    }
}

/// A connection over which the test has talked HTTP with a site.
#[track_caller]
fn plain(sandbox: &Guest, site: &Site) -> Talk {
    let mut talk = sandbox.talk(site.v4, HTTP);
    assert_eq!(talk.get(&site.name).reply().status, 200);
    talk
}

/// Nobody answers on this connection any more.
#[track_caller]
fn is_over(talk: &mut Talk, site: &Site) {
    let reply = talk.get(&site.name).read_reply();
    assert!(reply.is_err(), "{reply:?}");
}

fn allow(sandbox: &Guest, sites: &[&Site]) {
    let names: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
    sandbox.may_only_reach(&names);
}

#[track_caller]
fn answers(sandbox: &Guest, site: &Site) {
    for scheme in ["http", "https"] {
        let fetched = sandbox.curl(&format!("{scheme}://{}/", site.name)).run();
        assert!(site.shows(&fetched.page()), "{scheme}: {fetched:?}");
    }
}

#[test]
fn a_name_that_is_taken_away_closes_its_connections_and_no_others() {
    let sandbox = STAGE.sandbox();
    let (stays, goes) = (sandbox.stage.site("stays.example"), sandbox.stage.site("goes.example"));
    allow(&sandbox, &[&stays, &goes]);
    let (mut secure_stays, mut secure_goes) =
        (Secure::to(&sandbox, &stays), Secure::to(&sandbox, &goes));
    let (mut plain_stays, mut plain_goes) = (plain(&sandbox, &stays), plain(&sandbox, &goes));
    allow(&sandbox, &[&stays]);
    assert!(secure_stays.is_alive() && !secure_goes.is_alive());
    assert_eq!(plain_stays.get(&stays.name).reply().status, 200);
    is_over(&mut plain_goes, &goes);
    // The same by PUT …/network, for a connection that has come to the other site by and by.
    allow(&sandbox, &[&stays, &goes]);
    assert_eq!(plain_stays.get(&goes.name).reply().status, 200);
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["stays.example"] });
    assert_eq!(sandbox.stage.request("PUT", &path, &network).code, 204);
    is_over(&mut plain_stays, &goes);
    assert!(secure_stays.is_alive());
    sandbox.curl("https://goes.example/").run().is_denied();
}

#[test]
fn names_are_added_at_once() {
    let sandbox = STAGE.sandbox();
    let (one, other) = (sandbox.stage.site("one.example"), sandbox.stage.site("two.example"));
    sandbox.may_only_reach(&[]);
    let curl = sandbox.curl("https://one.example/").misled_to(one.v4);
    assert_eq!(curl.run().exit, policy_tests::names::curl::REFUSED);
    allow(&sandbox, &[&one]);
    answers(&sandbox, &one);
    let mut secure = Secure::to(&sandbox, &one);
    sandbox.curl("https://two.example/").run().is_denied();
    allow(&sandbox, &[&one, &other]);
    answers(&sandbox, &other);
    assert!(secure.is_alive());
}

#[test]
fn without_names_nothing_goes_through_the_proxy_any_more() {
    let sandbox = STAGE.sandbox();
    let site = sandbox.stage.site("removed.example");
    allow(&sandbox, &[&site]);
    let (mut secure, mut plain) = (Secure::to(&sandbox, &site), plain(&sandbox, &site));
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1"] }));
    assert!(!secure.is_alive());
    is_over(&mut plain, &site);
    let curl = sandbox.curl("https://removed.example/").misled_to(site.v4);
    assert_eq!(curl.run().exit, policy_tests::names::curl::REFUSED);
    assert_eq!(sandbox.curl("https://1.1.1.1/").run().exit, 0);
    sandbox.network(json!({}));
    let open = sandbox.curl("https://removed.example/").misled_to(site.v4).run();
    assert_eq!(open.page()["peer"], sandbox.addresses()[0].to_string());
}

#[test]
fn a_sandbox_that_is_deleted_has_no_connections() {
    let sandbox = STAGE.sandbox();
    let site = sandbox.stage.site("deleted.example");
    allow(&sandbox, &[&site]);
    let (mut secure, mut plain) = (Secure::to(&sandbox, &site), plain(&sandbox, &site));
    sandbox.delete();
    assert!(!secure.is_alive());
    is_over(&mut plain, &site);
}

#[test]
fn while_the_agent_is_away_names_are_refused_and_addresses_work() {
    let stage = Stage::with_names(RESOLVERS);
    let sandbox = stage.sandbox();
    let site = stage.site("away.example");
    sandbox.may_only_reach(&["away.example", "8.8.8.8", "1.1.1.1"]);
    let mut secure = Secure::to(&sandbox, &site);
    stage.kill();
    assert!(!secure.is_alive());
    for scheme in ["http", "https"] {
        for to in site.addresses() {
            let curl = sandbox.curl(&format!("{scheme}://away.example/")).misled_to(to);
            let refused = curl.run();
            assert_eq!(refused.exit, policy_tests::names::curl::REFUSED, "{refused:?}");
        }
        assert_eq!(sandbox.curl(&format!("{scheme}://1.1.1.1/")).run().exit, 0);
    }
    sandbox.reaches("8.8.8.8");
    for address in site.addresses() {
        assert_eq!(stage.names().visits(address), usize::from(is_first(&site, address)));
    }
    stage.restart();
    answers(&sandbox, &site);
    sandbox.curl("https://elsewhere.test/").misled_to(site.v4).run().is_denied();
}

/// The one connection from before went to one of the addresses.
fn is_first(site: &Site, address: std::net::IpAddr) -> bool {
    address == site.v6
}

#[test]
fn cleanup_takes_the_routing_rules_away() {
    let stage = Stage::with_names(RESOLVERS);
    let sandbox = stage.sandbox();
    let slot = policy_tests::world::slot::Slot::build("tidy").or_fail("building a slot");
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["some.example"] });
    sandbox.network(network.clone());
    let spec = slot.spec(&json!({ "network": network }));
    assert_eq!(stage.request("PUT", "/agent/v1/sandboxes/tidy", &spec).code, 200);
    let namespaces = [&stage.world.host, &slot.namespace];
    for namespace in namespaces {
        assert_eq!(routing(namespace), [true; 4], "{}", namespace.name());
    }
    stage.stop();
    let binary = agent::binary().or_fail("the binary");
    let cleanup = stage.world.host.command(&binary.to_string_lossy());
    let mut cleanup = cleanup.or_fail("entering the host");
    cleanup.args(["cleanup", "--config"]).arg(stage.agent().config());
    cleanup.arg("--socket").arg(stage.agent().socket());
    let output = cleanup.output().or_fail("cleaning up");
    assert!(output.status.success(), "{output:?}");
    for namespace in namespaces {
        assert_eq!(routing(namespace), [false; 4], "{}", namespace.name());
    }
}

/// Whether a namespace has the rule and the route of the hand-over, for each family.
#[track_caller]
fn routing(namespace: &Namespace) -> [bool; 4] {
    let table = policy_common::hand_over::TABLE.to_string();
    let ip = |family: &str, arguments: &[&str]| {
        let mut ip = Command::new("ip");
        ip.args(["-n", namespace.name(), family]).args(arguments);
        // A table that was never used is an error, and empty.
        command::run(&mut ip).unwrap_or_default()
    };
    let rule = |family| ip(family, &["rule", "show"]).contains(&format!("lookup {table}"));
    let route = |family| !ip(family, &["route", "show", "table", &table]).trim().is_empty();
    [rule("-4"), rule("-6"), route("-4"), route("-6")]
}
