//! More connections to the API than anybody needs, by someone without a key.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use policy_tests::{
    patience::{PATIENCE, eventually},
    stage::{OPENED, OrFail as _, Stage},
    world::host::HOST_V4,
};

const CROWD: usize = 3_000;
/// Descriptors that the agent may need for them.
const MAY_STAY: usize = 64;

#[test]
fn a_crowd_without_a_key_does_not_stay_and_others_are_served() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).or_fail("the limit of descriptors");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).or_fail("raising it");
    let stage =
        Stage::with(&format!("[api]\nlisten = \"{HOST_V4}:3000\"\napi_keys = [\"secret\"]\n"));
    let sandbox = stage.sandbox();
    let pid = stage.agent().pid().or_fail("the agent's process");
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).or_fail("descriptors").count();
    let before = descriptors();
    let inside = stage.world.host.enter().or_fail("entering the host");
    let mut known = connect();
    ask(&mut known, "X-API-Key: secret\r\n", "200");
    let crowd: Vec<_> = (0..CROWD)
        .map(|_| {
            let mut stranger = connect();
            let _ = stranger.write_all(b"GET /agent/v1/sandboxes HTTP/1.1\r\n");
            stranger
        })
        .collect();
    let few = || (descriptors() <= before + MAY_STAY).then_some(());
    eventually("the crowd is sent away", few).or_fail("counting descriptors");
    ask(&mut known, "X-API-Key: secret\r\n", "200");
    ask(&mut connect(), "X-API-Key: secret\r\n", "200");
    ask(&mut connect(), "", "401");
    drop(inside);
    sandbox.may_only_reach(&OPENED);
    sandbox.is_refused("8.8.8.9");
    drop(crowd);
}

#[track_caller]
fn connect() -> TcpStream {
    let stream = TcpStream::connect((HOST_V4, 3000)).or_fail("connecting");
    stream.set_read_timeout(Some(*PATIENCE)).or_fail("setting a limit");
    stream
}

/// Asks, and leaves the connection open.
#[track_caller]
fn ask(stream: &mut TcpStream, key: &str, status: &str) {
    let request = format!("GET /agent/v1/sandboxes HTTP/1.1\r\nHost: agent\r\n{key}\r\n");
    stream.write_all(request.as_bytes()).or_fail("asking");
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).or_fail("reading the answer");
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
}
