//! A sandbox that stops acknowledging when the proxy closes its connections.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpStream},
};

use policy_testbed::{
    named_internet::client_hello,
    network::command,
    test_servers::{HTTP_PORT, HTTPS_PORT},
    testbed::{OrFail as _, SharedTestbed, TestSandbox},
    wait::{WAIT_LIMIT, eventually},
};
use serde_json::Value;
use socket2::SockRef;

/// The limit of connections in [`TESTBED`].
const LIMIT: usize = 4;
/// Connections above the limit that the proxy may be sending an alert to.
const PENDING_ALERTS: usize = 8;
/// Attempts for each way to attack.
const ATTEMPTS: usize = 50;

static TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[proxy]\nresolvers = [\"8.8.8.8:53\"]\nmax_connections_per_sandbox = 4\n",
);

/// Drops each packet without data that the sandbox sends, except SYNs: acknowledgements, resets and
/// ends of streams.
#[track_caller]
fn drop_acknowledgements(sandbox: &TestSandbox) {
    for option in ["ipv4/tcp_sack", "ipv4/tcp_timestamps"] {
        sandbox.namespace.sysctl(option, "0").or_fail("headers without options");
    }
    let rules = "add table ip mute;
         add chain ip mute out { type filter hook output priority 0; };
         add rule ip mute out tcp flags & syn == 0 meta length 40 drop";
    let mut nft = sandbox.namespace.command("nft").or_fail("a command");
    command::run(nft.arg(rules)).or_fail("muting the sandbox");
}

/// Asks for a name that is not allowed, in one segment with the end of the stream if `ends`, and
/// waits for the answer. The sandbox acknowledges nothing of it.
#[track_caller]
fn ask_and_fall_silent(sandbox: &TestSandbox, (to, port): (Ipv4Addr, u16), ends: bool) {
    let request = match port {
        HTTPS_PORT => client_hello::hello_records("forbidden.example"),
        _ => b"GET /a-path-that-makes-it-longer HTTP/1.1\r\nHost: forbidden.example\r\n\r\n".into(),
    };
    let connected = {
        let _inside = sandbox.namespace.enter().or_fail("entering the sandbox");
        TcpStream::connect((to, port))
    };
    // Above the limit, it may be reset already.
    let Ok(mut stream) = connected else { return };
    stream.set_read_timeout(Some(*WAIT_LIMIT)).or_fail("a timeout");
    SockRef::from(&stream).set_tcp_cork(ends).or_fail("one segment");
    let _ = stream.write_all(&request);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let _ = stream.read(&mut [0; 512]);
}

/// The sockets of the host that are connected to the sandbox, whoever owns them.
#[track_caller]
fn sockets_towards(sandbox: &TestSandbox) -> usize {
    const TIME_WAIT: &str = "06";
    let _inside = sandbox.testbed.network.host.enter().or_fail("entering the host");
    let table = fs::read_to_string("/proc/thread-self/net/tcp").or_fail("the host's sockets");
    let peer = format!("{:08X}:", u32::from_ne_bytes(sandbox.addressing.v4().octets()));
    let is_towards = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next().is_some_and(|remote| remote.starts_with(&peer))
            && columns.next() != Some(TIME_WAIT)
    };
    table.lines().filter(is_towards).count()
}

/// The connections that the proxy counts.
#[track_caller]
pub(super) fn counted_connections(sandbox: &TestSandbox) -> usize {
    let metrics = sandbox.testbed.request("GET", "/metrics", &Value::Null).body;
    let name = "policy_proxy_active_connections ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(name));
    count.and_then(|count| count.parse().ok()).or_fail(&metrics)
}

#[test]
fn what_a_sandbox_never_acknowledges_counts_until_it_is_gone() {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("muted.example");
    sandbox.allow_only(&["muted.example"]);
    drop_acknowledgements(&sandbox);
    let to = match site.v4 {
        std::net::IpAddr::V4(v4) => v4,
        v6 => panic!("{v6}"),
    };
    for port in [HTTP_PORT, HTTPS_PORT] {
        for ends in [true, false] {
            for _ in 0..ATTEMPTS {
                ask_and_fall_silent(&sandbox, (to, port), ends);
                let sockets = sockets_towards(&sandbox);
                assert!(sockets <= LIMIT + PENDING_ALERTS, "{sockets}: {port} {ends}");
            }
        }
    }
    let none_counted = || (counted_connections(&sandbox) == 0).then_some(());
    eventually("nothing is counted", none_counted).or_fail("waiting");
    assert_eq!(sockets_towards(&sandbox), 0, "and nothing is left");
}
