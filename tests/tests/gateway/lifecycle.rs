//! Connections through the gateway, while sandboxes, services and the agent come and go.

use std::net::{SocketAddr, TcpStream};

use policy_tests::{
    gateway::{
        CONFIG, PORT,
        recorder::Recorder,
        service::{Served, Service},
    },
    names::raw::Talk,
    patience::{PATIENCE, eventually},
    probe::{self, Seen},
    server::ECHO,
    stage::{Guest, OrFail as _, Stage, ip},
    world::host::{HOST_V4, INTERNET_V4},
};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::{played, private, recorded};

const BEGUN: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";
const GRANTED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";

/// An answer that has begun, and another protocol that is spoken.
#[track_caller]
fn under_way(sandbox: &Guest, service: &Service) -> [(Talk, Served); 2] {
    let mut download = sandbox.ask("GET /", "\r\n");
    let mut downloads = service.accept();
    downloads.head();
    downloads.say(BEGUN);
    download.until("begun");
    let mut upgraded = sandbox.ask("GET /", "Connection: Upgrade\r\nUpgrade: raw\r\n\r\n");
    let mut upgrades = service.accept();
    upgrades.head();
    upgrades.say(GRANTED);
    assert_eq!(upgraded.reply().status, 101);
    upgraded.say("hello");
    upgrades.until("hello");
    [(download, downloads), (upgraded, upgrades)]
}

/// Whether both sides of all connections learn of their end.
#[track_caller]
fn all_end(connections: [(Talk, Served); 2]) {
    for (mut talk, mut served) in connections {
        talk.ending();
        served.rest();
    }
}

#[test]
fn what_goes_through_the_gateway_ends_with_the_sandbox() {
    let (sandbox, service) = played(json!({}));
    let connections = under_way(&sandbox, &service);
    sandbox.delete();
    all_end(connections);
    let reply = sandbox.ask("GET /", "\r\n").reply();
    reply.is_of_gateway(502);
    assert!(reply.page().get("port").is_none(), "{reply:?}");
    assert!(service.is_quiet());
}

#[test]
fn a_kept_connection_ends_with_the_sandbox() {
    let (sandbox, service) = played(json!({}));
    let mut talk = sandbox.ask("GET /", "\r\n");
    let mut served = service.accept();
    served.head();
    served.say("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(talk.reply().status, 204);
    sandbox.delete();
    assert_eq!(served.rest(), "");
    // Its successor has connections of its own.
    sandbox.network(json!({}));
    talk.get(&sandbox.host(PORT));
    service.accept().head();
}

#[test]
fn what_was_public_ends_when_the_sandbox_turns_private() {
    let (sandbox, service) = played(json!({}));
    let connections = under_way(&sandbox, &service);
    sandbox.network(private());
    all_end(connections);
}

#[test]
fn other_updates_leave_it_alone_and_answers_go_out_under_deny_all() {
    let (sandbox, service) = played(json!({}));
    let [(mut download, mut downloads), (mut upgraded, mut upgrades)] =
        under_way(&sandbox, &service);
    for network in [json!({ "denyOut": ["0.0.0.0/0"] }), json!({ "allowOut": ["1.1.1.1"] })] {
        sandbox.network(network);
        downloads.say("4\r\nmore\r\n");
        download.until("more");
        upgraded.say("question");
        upgrades.until("question");
        upgrades.say("answer");
        upgraded.until("answer");
    }
    sandbox.configure(&json!({ "allowInternetAccess": false }));
    downloads.say("3\r\nend\r\n0\r\n\r\n");
    download.until("0\r\n\r\n");
    let mut talk = sandbox.ask("GET /", "\r\n");
    let mut served = downloads;
    served.head();
    served.say("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(talk.reply().status, 204);
}

#[test]
fn an_exposed_port_is_no_way_out() {
    let (sandbox, service) = played(json!({ "denyOut": ["0.0.0.0/0"] }));
    let [(mut download, mut downloads), _upgraded] = under_way(&sandbox, &service);
    // Its port is free for others, but for the connections that stand.
    drop(service);
    for to in ["8.8.8.8", &INTERNET_V4.to_string()] {
        let seen = from_port(&sandbox, (ip(to), ECHO).into());
        assert_eq!(seen, Seen::Refused, "to {to} from the exposed port");
    }
    downloads.say("3\r\nend\r\n0\r\n\r\n");
    download.until("0\r\n\r\n");
}

/// What becomes of a connection from the port of the service.
#[track_caller]
fn from_port(sandbox: &Guest, to: SocketAddr) -> Seen {
    let _inside = sandbox.inside.enter().or_fail("entering the sandbox");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).or_fail("a socket");
    socket.set_reuse_address(true).or_fail("using an address again");
    let from = SocketAddr::from((sandbox.identity.v4(), PORT));
    // A program that another test is just starting may still hold what it will not inherit.
    let taken = eventually("the exposed port is free", || socket.bind(&from.into()).ok());
    taken.or_fail("taking the exposed port");
    match socket.connect_timeout(&to.into(), *PATIENCE) {
        Ok(()) => Seen::Answered,
        Err(error) => probe::seen(&error),
    }
}

#[test]
fn a_service_may_start_again_and_move() {
    let sandbox = crate::sandbox(json!({}));
    let asked = || {
        let post = sandbox.ask("POST /", "Content-Length: 2\r\n\r\nhi").reply().status;
        [sandbox.ask("GET /", "\r\n").reply().status, post]
    };
    assert_eq!(asked(), [502, 502]);
    for _ in 0..3 {
        let service = Service::listen(&sandbox.inside, PORT).or_fail("listening");
        let mut talk = sandbox.ask("GET /", "\r\n");
        let mut served = service.accept();
        served.head();
        served.say("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(talk.reply().status, 204);
        let stream: TcpStream = served.stream;
        drop((stream, service));
        // The kept connection is gone: what was not answered may be asked again, if it may.
        let gone = eventually("the port is closed", || (asked() == [502, 502]).then_some(()));
        gone.or_fail("asking");
    }
}

#[test]
fn the_agent_may_start_again() {
    let stage = Stage::with_names(CONFIG);
    let sandbox = stage.sandbox();
    sandbox.network(json!({}));
    let recorder = Recorder::start(&sandbox.inside, PORT).or_fail("the recorder");
    for number in 0..3 {
        let mut talk = sandbox.ask("GET /", "\r\n");
        assert_eq!(talk.reply().status, 200);
        assert_eq!(recorder.heads().len(), number + 1);
        if number == 0 {
            stage.kill()
        } else {
            stage.stop()
        }
        stage.restart();
    }
}

#[test]
fn a_sandbox_without_its_interface_has_no_services() {
    let (sandbox, service) = played(json!({}));
    let stage = &sandbox.stage;
    stage.world.host.ip(&format!("link del {}", sandbox.interface)).or_fail("deleting the link");
    let noticed = || {
        let reply = sandbox.ask("GET /", "\r\n").read_reply().ok()?;
        (reply.status == 502).then_some(reply)
    };
    let reply = eventually("the gateway notices", noticed).or_fail("asking");
    reply.is_of_gateway(502);
    assert!(service.is_quiet());
}

#[test]
fn clients_can_ask_whether_a_sandbox_lives() {
    let (sandbox, _recorder) = recorded(json!({}));
    let asked = |id: &str| {
        let fields = [format!("E2b-Sandbox-Id: {id}"), "E2b-Sandbox-Port: 49983".to_owned()];
        let curl = sandbox.stage.visitor(&format!("http://{HOST_V4}/health"));
        let status = curl.with(&["-H", &fields[0], "-H", &fields[1]]).run().status;
        (status < 300, status == 502)
    };
    assert_eq!(asked(&sandbox.id), (true, false));
    assert_eq!(asked("nobody"), (false, true));
    sandbox.delete();
    assert_eq!(asked(&sandbox.id), (false, true));
}
