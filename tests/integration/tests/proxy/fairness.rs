//! A sandbox that burdens the proxy as much as it can: another notices nothing of it, and the proxy
//! gives back what it took.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpStream},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use policy_testbed::{
    named_internet::{client_hello, dns_zone::DnsAnswer},
    test_servers::{HTTP_PORT, HTTPS_PORT},
    testbed::{OrFail as _, RESOLVER_CONFIG, TestSandbox, Testbed},
    wait::{WAIT_LIMIT, eventually},
};

use super::{closing_connections::counted_connections, proxied_traffic::agent_memory_bytes};

/// Connections that one sandbox opens at once.
const MANY: usize = 1_000;
/// Connections with an answer that nobody reads. Each fills the kernel's buffers on both sides.
const SLOW_READERS: usize = 50;
/// Requests of the other sandbox during an attack.
const REQUESTS: usize = 10;
/// Bursts, and the connections of each.
const BURSTS: usize = 6;
const BURST_SIZE: usize = 300;

/// Opens a connection for each message and sends it. Some may be refused already.
#[track_caller]
fn send_each(sandbox: &TestSandbox, to: (IpAddr, u16), messages: &[Vec<u8>]) -> Vec<TcpStream> {
    let _inside = sandbox.namespace.enter().or_fail("entering the sandbox");
    let open = |message: &Vec<u8>| {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(to), *WAIT_LIMIT).ok();
        stream.inspect(|mut stream| drop(stream.write_all(message)))
    };
    messages.iter().filter_map(open).collect()
}

#[track_caller]
fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).or_fail("the limit of descriptors");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).or_fail("raising it");
}

/// Fetches pages from inside a sandbox that has nothing to do with the attack.
#[track_caller]
fn assert_unimpaired(other: &TestSandbox, during: &str) {
    for scheme in ["https", "http"].iter().cycle().take(REQUESTS) {
        let fetched = other.curl(&format!("{scheme}://fair.example/")).run();
        assert_eq!(fetched.exit_code, 0, "{during}: {fetched:?}");
    }
}

#[test]
fn whatever_one_sandbox_does_another_goes_on() {
    raise_descriptor_limit();
    let testbed = Testbed::with_names(RESOLVER_CONFIG);
    let (sandbox, other) = (testbed.add_sandbox(), testbed.add_sandbox());
    let site = testbed.add_site("fair.example");
    for each in [&sandbox, &other] {
        each.allow_only(&["fair.example", "*.flood.example"]);
    }
    let flood_name = |index: usize| format!("n{index}.flood.example");
    for index in 0..MANY {
        let silent = DnsAnswer::with_addresses(&[site.v4]).unanswered();
        testbed.named_internet().zone.set_answer(&flood_name(index), silent);
    }
    let hello = client_hello::hello_records("fair.example");
    let slow_hello = hello[..hello.len() - 1].to_vec();
    let slow_request = b"GET / HTTP/1.1\r\nHost: fair.example\r\n".to_vec();
    let slow_read = b"GET /bytes/1000000 HTTP/1.1\r\nHost: fair.example\r\n\r\n".to_vec();
    let names = (0..MANY).map(|index| client_hello::hello_records(&flood_name(index)));
    let attacks = [
        ("silence", HTTPS_PORT, vec![Vec::new(); MANY]),
        ("slow handshakes", HTTPS_PORT, vec![slow_hello; MANY]),
        ("slow heads", HTTP_PORT, vec![slow_request; MANY]),
        ("slow readers", HTTP_PORT, vec![slow_read; SLOW_READERS]),
        ("names that nobody answers for", HTTPS_PORT, names.collect()),
    ];
    for (attack, port, messages) in attacks {
        let held = send_each(&sandbox, (site.v4, port), &messages);
        assert!(!held.is_empty(), "{attack}: no connection");
        assert_unimpaired(&other, attack);
        drop(held);
    }
    let none_counted = || (counted_connections(&sandbox) == 0).then_some(());
    eventually("all connections have ended", none_counted).or_fail("waiting");
}

/// The agent's open file descriptors.
#[track_caller]
fn open_descriptors(sandbox: &TestSandbox) -> usize {
    let pid = sandbox.testbed.agent().pid().or_fail("the agent's process");
    fs::read_dir(format!("/proc/{pid}/fd")).or_fail("its descriptors").count()
}

#[test]
fn what_a_burst_took_is_given_back() {
    let testbed = Testbed::with_names(RESOLVER_CONFIG);
    let sandbox = testbed.add_sandbox();
    let site = testbed.add_site("burst.example");
    sandbox.allow_only(&["burst.example"]);
    let hello = client_hello::hello_records("burst.example");
    let request = b"GET / HTTP/1.1\r\nHost: burst.example\r\n\r\n".to_vec();
    let mut after_bursts = Vec::new();
    for _ in 0..BURSTS {
        for (port, message) in [(HTTPS_PORT, &hello), (HTTP_PORT, &request)] {
            let messages = vec![message.clone(); BURST_SIZE];
            let held = send_each(&sandbox, (site.v4, port), &messages);
            assert_eq!(held.len(), BURST_SIZE);
            let all_counted = || (counted_connections(&sandbox) >= BURST_SIZE).then_some(());
            eventually("all connections are counted", all_counted).or_fail("waiting");
            drop(held);
            let none_counted = || (counted_connections(&sandbox) == 0).then_some(());
            eventually("all connections have ended", none_counted).or_fail("waiting");
        }
        after_bursts.push((agent_memory_bytes(&sandbox), open_descriptors(&sandbox)));
    }
    let ((first_memory, first_open), (memory, _)) = (after_bursts[0], after_bursts[BURSTS - 1]);
    assert!(memory < first_memory + 16_000_000, "bytes, descriptors: {after_bursts:?}");
    let given_back = || (open_descriptors(&sandbox) <= first_open + 20).then_some(());
    eventually("the descriptors are closed", given_back).or_fail("waiting");
}
