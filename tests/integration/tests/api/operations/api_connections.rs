//! Excessive connections to the API from a client without a key.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use policy_testbed::{
    network::host_router::HOST_UPLINK_V4,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed},
    wait::{WAIT_LIMIT, eventually},
};

const CONNECTIONS: usize = 3_000;
/// The number of descriptors that the agent may use for them.
const DESCRIPTOR_ALLOWANCE: usize = 64;

#[test]
fn many_clients_without_a_key_are_dropped_and_others_are_served() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).or_fail("the limit of descriptors");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).or_fail("raising it");
    let stage = Testbed::with_config(&format!(
        "[api]\nlisten = \"{HOST_UPLINK_V4}:3000\"\napi_keys = [\"secret\"]\n"
    ));
    let sandbox = stage.add_sandbox();
    let pid = stage.agent().pid().or_fail("the agent's process");
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).or_fail("descriptors").count();
    let before = descriptors();
    let inside = stage.network.host.enter().or_fail("entering the host");
    let mut known = connect_api();
    request_keep_alive(&mut known, "X-API-Key: secret\r\n", "200");
    let crowd: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stranger = connect_api();
            let _ = stranger.write_all(b"GET /agent/v1/sandboxes HTTP/1.1\r\n");
            stranger
        })
        .collect();
    let few = || (descriptors() <= before + DESCRIPTOR_ALLOWANCE).then_some(());
    eventually("the crowd is sent away", few).or_fail("counting descriptors");
    request_keep_alive(&mut known, "X-API-Key: secret\r\n", "200");
    request_keep_alive(&mut connect_api(), "X-API-Key: secret\r\n", "200");
    request_keep_alive(&mut connect_api(), "", "401");
    drop(inside);
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    sandbox.assert_refused("8.8.8.9");
    drop(crowd);
}

#[track_caller]
fn connect_api() -> TcpStream {
    let stream = TcpStream::connect((HOST_UPLINK_V4, 3000)).or_fail("connecting");
    stream.set_read_timeout(Some(*WAIT_LIMIT)).or_fail("setting a limit");
    stream
}

/// Sends a request and leaves the connection open.
#[track_caller]
fn request_keep_alive(stream: &mut TcpStream, key: &str, status: &str) {
    let request = format!("GET /agent/v1/sandboxes HTTP/1.1\r\nHost: agent\r\n{key}\r\n");
    stream.write_all(request.as_bytes()).or_fail("asking");
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).or_fail("reading the answer");
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
}
