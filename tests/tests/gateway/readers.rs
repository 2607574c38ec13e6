//! What clients cost that do not read, and services that do not.

use std::{fs, io::Write as _, thread, time::Duration};

use policy_tests::{
    gateway::{CONFIG, PORT, service::Service, service::Website},
    names::raw::Talk,
    stage::{Guest, OrFail as _, Stage},
};
use serde_json::json;

/// Of each kind.
const MANY: usize = 250;
/// Bytes of the agent's memory that a client may cost that does not read. The state of a connection is
/// larger where nothing is optimised.
const MOST: usize = if cfg!(debug_assertions) { 96 * 1024 } else { 64 * 1024 };

/// Bytes of memory that a process has.
#[track_caller]
fn resident(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).or_fail("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).or_fail("a size");
    let kib: usize = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).or_fail("KiB");
    kib * 1024
}

/// The same when it changes no more.
#[track_caller]
fn settled(pid: u32) -> usize {
    let (mut before, mut same) = (resident(pid), 0);
    for _ in 0..1000 {
        thread::sleep(Duration::from_millis(20));
        let now = resident(pid);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        if same == 25 {
            break;
        }
    }
    before
}

/// What each of many costs, in bytes, while they are there.
#[track_caller]
fn cost<T>(sandbox: &Guest, mut open: impl FnMut() -> T) -> usize {
    let pid = sandbox.stage.agent().pid().or_fail("the agent's process");
    // What is there once, for all.
    drop((0..8).map(|_| open()).collect::<Vec<_>>());
    let before = settled(pid);
    let _many: Vec<T> = (0..MANY).map(|_| open()).collect();
    settled(pid).saturating_sub(before) / MANY
}

#[track_caller]
fn stage() -> Guest {
    let sandbox = Stage::with_names(CONFIG).sandbox();
    sandbox.network(json!({}));
    sandbox
}

#[test]
fn a_client_that_does_not_read_costs_little() {
    let sandbox = stage();
    let _website = Website::start(&sandbox.inside, PORT, None).or_fail("the website");
    let http1 = || -> Talk { sandbox.ask("GET /bytes/50000000", "\r\n") };
    let each = cost(&sandbox, http1);
    assert!(each <= MOST, "{each} bytes for each");
}

#[test]
fn an_upload_that_the_service_does_not_read_costs_little() {
    let sandbox = stage();
    let service = Service::listen(&sandbox.inside, PORT).or_fail("listening");
    let part = vec![b'x'; 4 << 20];
    let upload = || {
        let mut talk = sandbox.ask("POST /", "Content-Length: 50000000\r\n\r\n");
        talk.stream().set_nonblocking(true).or_fail("not waiting");
        let served = service.accept();
        let mut sent = 0;
        // As much as it takes at once; the rest waits in sockets.
        while let Ok(more @ 1..) = talk.stream().write(&part[sent..]) {
            sent += more;
        }
        (talk, served)
    };
    let each = cost(&sandbox, upload);
    assert!(each <= MOST, "{each} bytes for each");
}
