//! The cost of clients and services that do not read.

use std::{fs, io::Write as _, thread, time::Duration};

use policy_testbed::{
    named_internet::raw_http::RawHttpConnection,
    public_url::{
        GATEWAY_CONFIG, SERVICE_PORT, manual_service::ManualService, manual_service::SandboxWebsite,
    },
    testbed::{OrFail as _, TestSandbox, Testbed},
};
use serde_json::json;

/// The number of clients of each kind.
const CLIENTS: usize = 250;
/// The limit of the agent's memory per client that does not read, in bytes. Without optimisation
/// the state of a connection is larger: 70 to 114 kB have been measured.
const MAX_BYTES_PER_CLIENT: usize = if cfg!(debug_assertions) { 160 * 1024 } else { 64 * 1024 };

/// The anonymous memory of a process in bytes. File pages of its program are not counted: the
/// kernel maps and drops them at any time.
#[track_caller]
fn resident_bytes(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).or_fail("its status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).or_fail("a size");
    let kib: usize = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).or_fail("KiB");
    kib * 1024
}

/// The same, once it no longer changes.
#[track_caller]
fn settled_resident_bytes(pid: u32) -> usize {
    let (mut before, mut same) = (resident_bytes(pid), 0);
    for _ in 0..1000 {
        thread::sleep(Duration::from_millis(20));
        let now = resident_bytes(pid);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        if same == 25 {
            break;
        }
    }
    before
}

/// The memory in bytes that each of many open clients costs.
#[track_caller]
fn bytes_per_client<T>(sandbox: &TestSandbox, mut open: impl FnMut() -> T) -> usize {
    let pid = sandbox.testbed.agent().pid().or_fail("the agent's process");
    // Excludes one-time allocations.
    drop((0..8).map(|_| open()).collect::<Vec<_>>());
    let before = settled_resident_bytes(pid);
    let _many: Vec<T> = (0..CLIENTS).map(|_| open()).collect();
    settled_resident_bytes(pid).saturating_sub(before) / CLIENTS
}

#[track_caller]
fn sandbox_on_own_testbed() -> TestSandbox {
    let sandbox = Testbed::with_names(GATEWAY_CONFIG).add_sandbox();
    sandbox.apply_network(json!({}));
    sandbox
}

#[test]
fn a_client_that_does_not_read_costs_little() {
    let sandbox = sandbox_on_own_testbed();
    let _website =
        SandboxWebsite::start(&sandbox.namespace, SERVICE_PORT, None).or_fail("the website");
    let http1 =
        || -> RawHttpConnection { sandbox.send_public_request("GET /bytes/50000000", "\r\n") };
    let each = bytes_per_client(&sandbox, http1);
    assert!(each <= MAX_BYTES_PER_CLIENT, "{each} bytes for each");
}

#[test]
fn an_upload_that_the_service_does_not_read_costs_little() {
    let sandbox = sandbox_on_own_testbed();
    let service = ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening");
    let part = vec![b'x'; 4 << 20];
    let upload = || {
        let mut talk = sandbox.send_public_request("POST /", "Content-Length: 50000000\r\n\r\n");
        talk.stream().set_nonblocking(true).or_fail("not waiting");
        let served = service.accept();
        let mut sent = 0;
        // As much as the socket accepts at once. The rest waits in buffers.
        while let Ok(more @ 1..) = talk.stream().write(&part[sent..]) {
            sent += more;
        }
        (talk, served)
    };
    let each = bytes_per_client(&sandbox, upload);
    assert!(each <= MAX_BYTES_PER_CLIENT, "{each} bytes for each");
}
