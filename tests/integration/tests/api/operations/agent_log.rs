//! The agent does not wait for a reader of its log that has stopped reading.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::OpenOptionsExt as _,
    sync::Arc,
};

use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};
use policy_testbed::{
    testbed::{OrFail as _, Testbed},
    wait::{WAIT_LIMIT, eventually},
};
use serde_json::{Value, json};

/// Enough requests for their log lines to exceed the agent's buffer.
const REQUESTS: usize = 4_000;
/// The path length of each request in bytes.
const PATH_BYTES: usize = 250;

/// An agent whose stderr is a pipe.
struct UnreadLogAgent {
    testbed: Arc<Testbed>,
    stderr: File,
}

impl UnreadLogAgent {
    #[track_caller]
    fn with_piped_stderr() -> Self {
        let config = "[gateway]\ndomain = \"sandbox.example.com\"\nhttp = \"127.0.0.1:8080\"";
        let stage = Testbed::without_agent(config);
        let path = stage.agent().directory().join("stderr");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).or_fail("making a pipe");
        let mut open = OpenOptions::new();
        // Also for writing, so that opening the pipe does not wait for the agent.
        open.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let pipe = open.open(&path).or_fail("opening the pipe");
        let redirect = format!("exec \"$0\" \"$@\" 2> {}", path.display());
        stage.agent_mut().set_launch_prefix(["bash", "-c", &redirect].map(str::to_owned).to_vec());
        stage.restart_agent();
        Self { testbed: stage, stderr: pipe }
    }

    /// Makes the agent log more than its buffer holds.
    #[track_caller]
    fn overflow_log(&self) {
        let _inside = self.testbed.network.host.enter().or_fail("entering the host");
        let mut gateway = TcpStream::connect("127.0.0.1:8080").or_fail("connecting");
        gateway.set_read_timeout(Some(*WAIT_LIMIT)).or_fail("setting a limit");
        let mut answers = BufReader::new(gateway.try_clone().or_fail("a second handle"));
        let path = "x".repeat(PATH_BYTES);
        let request =
            format!("GET /{path} HTTP/1.1\r\nHost: 80-nosuch.sandbox.example.com\r\n\r\n");
        for number in 0..REQUESTS {
            gateway.write_all(request.as_bytes()).or_fail("asking");
            let code = read_status(&mut answers);
            assert_eq!(code, "502", "request {number}");
        }
    }

    fn dropped_lines(&self) -> u64 {
        let metrics = self.testbed.request("GET", "/metrics", &Value::Null).body;
        let name = "policy_log_lines_dropped_total ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.parse().ok()).or_fail(&metrics)
    }
}

/// Reads a response and returns its status.
#[track_caller]
fn read_status(from: &mut impl std::io::BufRead) -> String {
    let (mut status, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).or_fail("reading an answer");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().or_fail("a length");
        } else if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.split(' ').next().unwrap_or_default().to_owned();
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).or_fail("reading a body");
    status
}

#[test]
fn everything_goes_on_and_lost_lines_are_reported() {
    let mut muted = UnreadLogAgent::with_piped_stderr();
    let sandbox = muted.testbed.add_sandbox();
    muted.overflow_log();
    assert!(muted.testbed.agent().is_healthy());
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.assert_refused("8.8.8.8");
    let dropped = muted.dropped_lines();
    assert!(dropped > 0 && dropped < REQUESTS as u64, "{dropped}");
    // The reader resumes.
    let mut text = Vec::new();
    let told = eventually("the log tells what was lost", || {
        let _ = muted.stderr.read_to_end(&mut text); // until the pipe is empty
        let text = String::from_utf8_lossy(&text);
        text.lines().find(|line| line.contains("lines of the log were dropped")).map(str::to_owned)
    });
    let told = told.or_fail("reading the log");
    assert!(told.contains(&format!("lines={dropped}")), "{told} {dropped}");
    assert_eq!(muted.dropped_lines(), dropped, "what is read in time is not dropped");
    muted.testbed.stop_agent();
}

#[test]
fn an_agent_whose_log_nobody_reads_can_be_stopped() {
    let muted = UnreadLogAgent::with_piped_stderr();
    muted.overflow_log();
    muted.testbed.stop_agent();
}
