//! Traffic that must keep working under a policy that allows it.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
};

use policy_testbed::{
    probe::{self, ProbeResult},
    test_servers,
    testbed::{OrFail as _, SharedTestbed, TestSandbox, parse_ip},
};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

const ALLOWED: [&str; 2] = ["8.8.8.8", "2001:db8:1::1"];

fn sandbox_allowed_two_addresses() -> TestSandbox {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&ALLOWED);
    sandbox
}

#[test]
fn protocols_in_which_the_server_speaks_first() {
    let sandbox = sandbox_allowed_two_addresses();
    for address in ALLOWED {
        let to = (parse_ip(address), test_servers::SSH_PORT).into();
        let mut stream = probe::connect(&sandbox.namespace, to).or_fail("connecting");
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).or_fail("the greeting");
        assert_eq!(&greeting, b"SSH-2.0-");
    }
}

#[test]
fn dns_over_udp_and_tcp() {
    let sandbox = sandbox_allowed_two_addresses();
    for address in ALLOWED {
        assert_eq!(sandbox.probe_udp(address, test_servers::DNS_PORT), ProbeResult::Answered);
        assert_eq!(sandbox.probe_tcp(address, test_servers::DNS_PORT), ProbeResult::Answered);
    }
}

#[test]
fn a_connection_that_is_half_closed() {
    let sandbox = sandbox_allowed_two_addresses();
    for address in ALLOWED {
        let mut stream = sandbox.connect_echo(address);
        stream.write_all(b"all I have to say").or_fail("sending");
        stream.shutdown(Shutdown::Write).or_fail("closing one half");
        let mut back = String::new();
        stream.read_to_string(&mut back).or_fail("reading the other half");
        assert_eq!(back, "all I have to say");
    }
}

#[test]
fn large_transfers_in_both_directions_byte_by_byte() {
    let sandbox = sandbox_allowed_two_addresses();
    for address in ALLOWED {
        let mut stream = sandbox.connect_echo(address);
        echo_concurrently(&mut stream, 16_000_000).or_fail(address);
    }
}

#[test]
fn many_connections_at_a_time() {
    let sandbox = sandbox_allowed_two_addresses();
    let mut streams: Vec<TcpStream> = Vec::new();
    for i in 0..200 {
        streams.push(sandbox.connect_echo(ALLOWED[i % 2]));
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        probe::echo(stream, format!("connection {i}").as_bytes()).or_fail("an echo");
    }
}

#[test]
fn real_curl_and_real_ping() {
    let sandbox = sandbox_allowed_two_addresses();
    for (address, host) in [("8.8.8.8", "8.8.8.8"), ("2001:db8:1::1", "[2001:db8:1::1]")] {
        let mut curl = sandbox.namespace.command("curl").or_fail("entering the sandbox");
        let output = curl.args(["-sS", "--max-time", "10", &format!("http://{host}/")]).output();
        let output = output.or_fail("curl");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.starts_with(&format!("{address} answers")), "{output:?}");
        let mut ping = sandbox.namespace.command("ping").or_fail("entering the sandbox");
        let output = ping.args(["-n", "-c1", "-W5", address]).output().or_fail("ping");
        assert!(output.status.success(), "{output:?}");
    }
}

/// Sends bytes and reads them back concurrently.
fn echo_concurrently(stream: &mut TcpStream, length: usize) -> io::Result<()> {
    let sent: Vec<u8> = (0..251).cycle().take(length).collect();
    let mut writer = stream.try_clone()?;
    let mut back = vec![0; length];
    thread::scope(|scope| {
        let writing = scope.spawn(|| writer.write_all(&sent));
        stream.read_exact(&mut back)?;
        writing.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    })?;
    if back == sent { Ok(()) } else { Err(io::Error::other("the bytes differ")) }
}
