//! Slow clients of the API: the agent disconnects them, and other clients do not wait for them.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use policy_testbed::{
    agent::AgentProcess,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed},
};

use super::report_duration;

/// Longer than the agent's time limit for clients.
const OBSERVATION_TIME: Duration = Duration::from_secs(25);

/// The interval at which a trickling client sends.
const TRICKLE_INTERVAL: Duration = Duration::from_millis(500);

/// The beginnings of slow requests.
const REQUEST_PREFIXES: [(&str, &str); 4] = [
    ("says nothing", ""),
    ("stops in the request line", "GET /hea"),
    ("stops in the header", "GET /health HTTP/1.1\r\nHost: agent\r\nX-Slow: "),
    (
        "stops in the body",
        "PUT /agent/v1/sandboxes/slow HTTP/1.1\r\nHost: agent\r\nContent-Length: 100000\r\n\r\n{",
    ),
];

#[test]
fn slow_clients_are_disconnected_and_delay_nobody() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let tally = sandbox.start_counted_flood();
    let begin = Instant::now();
    let clients: Vec<_> = REQUEST_PREFIXES
        .iter()
        .flat_map(|(what, beginning)| [(*what, *beginning, false), (*what, *beginning, true)])
        // A client that sends nothing cannot trickle.
        .filter(|(_, beginning, trickles)| !(beginning.is_empty() && *trickles))
        .map(|(what, beginning, trickles)| {
            let stream = connect_with_prefix(&stage.agent(), beginning);
            (what, trickles, thread::spawn(move || is_disconnected(stream, trickles)))
        })
        .collect();
    let crowd: Vec<_> = (0..300).map(|_| connect_with_prefix(&stage.agent(), "PUT /")).collect();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    let waiting = clients.iter().all(|(_, _, client)| !client.is_finished());
    assert!(waiting, "a change waited until a slow client was sent away");
    for _ in 0..20 {
        sandbox.allow_only(&ALLOWED_ADDRESSES);
    }
    tally.assert_no_leak_or_loss("slow clients of the API");
    for (what, trickles, client) in clients {
        let gone = client.join().unwrap_or_else(|_| panic!("{what}: the client panicked"));
        assert!(
            gone,
            "{what}, trickling: {trickles}: it is still there after {OBSERVATION_TIME:?}"
        );
    }
    report_duration("slow clients: until the last was sent away", begin);
    for mut client in crowd {
        let _ = client.set_read_timeout(Some(OBSERVATION_TIME));
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).or_fail("one of the crowd is still there");
    }
    assert!(stage.agent().is_healthy());
}

#[track_caller]
fn connect_with_prefix(agent: &AgentProcess, beginning: &str) -> UnixStream {
    let mut stream = UnixStream::connect(agent.socket_path()).or_fail("connecting");
    stream.write_all(beginning.as_bytes()).or_fail("beginning");
    stream
}

/// Returns whether the agent closes the connection in time, however steadily the client sends.
fn is_disconnected(mut stream: UnixStream, trickles: bool) -> bool {
    let begin = Instant::now();
    let _ = stream.set_read_timeout(Some(TRICKLE_INTERVAL));
    let mut answer = [0; 4096];
    while begin.elapsed() < OBSERVATION_TIME {
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => continue, // an error response
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
        if trickles && stream.write_all(b"x").is_err() {
            return true;
        }
    }
    false
}
