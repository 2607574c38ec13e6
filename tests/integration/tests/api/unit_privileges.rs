//! All functions of the agent work with exactly the privileges that its systemd unit grants.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    sync::Arc,
};

use policy_testbed::{
    agent::{agent_binary, systemd_unit::SystemdUnit},
    network::namespaced_sandbox::NamespacedSandbox,
    probe::{self, ProbeKind, ProbeResult},
    public_url::{GATEWAY_CONFIG, SERVICE_PORT, manual_service::SandboxWebsite},
    test_servers,
    testbed::{OrFail as _, RESOLVER_CONFIG, Testbed, parse_ip},
    wait::{WAIT_LIMIT, eventually},
};
use serde_json::json;

/// A testbed whose agent has the unit's privileges.
fn testbed_with_unit_rights() -> Arc<Testbed> {
    let stage = Testbed::with_names(&format!("{RESOLVER_CONFIG}{GATEWAY_CONFIG}"));
    stage.stop_agent();
    let unit = SystemdUnit::read_shipped().or_fail("reading the unit");
    stage.agent_mut().set_launch_prefix(unit.launch_prefix());
    stage.restart_agent();
    stage
}

/// The path of `/proc/PID/status` of the agent.
fn process_status_path(stage: &Testbed) -> String {
    format!("/proc/{}/status", stage.agent().pid().or_fail("a running agent"))
}

/// A line of such a file.
fn status_line(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).or_fail(file);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.or_fail(name).trim().to_owned()
}

/// A set of capabilities in such a file.
fn capability_mask(file: &str, name: &str) -> u64 {
    u64::from_str_radix(&status_line(file, name), 16).or_fail(name)
}

#[test]
fn the_agent_has_what_the_unit_leaves_and_nothing_else() {
    let stage = testbed_with_unit_rights();
    let unit = SystemdUnit::read_shipped()
        .and_then(|unit| unit.capability_mask())
        .or_fail("the unit's capabilities");
    // A container may grant less, for example without CAP_SYS_RESOURCE.
    let here = capability_mask("/proc/self/status", "CapBnd");
    let expected = unit & here;
    let needed = SystemdUnit::REQUIRED_CAPABILITIES.iter().map(|bit| 1 << bit).sum::<u64>();
    assert_eq!(expected & needed, needed, "the unit leaves {unit:x}, of which there is {here:x}");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let bits = capability_mask(&process_status_path(&stage), set);
        assert_eq!(bits, expected, "{set}: {bits:x} and not {expected:x}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(capability_mask(&process_status_path(&stage), set), 0, "{set}");
    }
    assert_eq!(status_line(&process_status_path(&stage), "NoNewPrivs"), "1");
    let socket = fs::metadata(stage.agent().socket_path()).or_fail("the socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    let state = fs::metadata(stage.agent().state_dir().join("sandboxes")).or_fail("the state");
    assert_eq!(state.permissions().mode() & 0o777, 0o700);
}

#[test]
fn addresses_names_and_public_urls_work() {
    let stage = testbed_with_unit_rights();
    let (right, wrong) = (stage.add_site("right.example"), stage.add_site("wrong.example"));
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&["right.example", "8.8.8.8"]);
    for scheme in ["http", "https"] {
        let url = |name: &str| format!("{scheme}://{name}/");
        let fetched = sandbox.curl(&url("right.example")).run();
        assert!(right.served_page(&fetched.page_json()), "{fetched:?}");
        assert_ne!(sandbox.curl(&url("wrong.example")).run().status, 200, "{}", wrong.v4);
    }
    sandbox.assert_name_denied("wrong.example", "name_not_allowed");
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
    let _website =
        SandboxWebsite::start(&sandbox.namespace, SERVICE_PORT, None).or_fail("a website");
    for scheme in ["http", "https"] {
        assert_eq!(sandbox.curl_public_url(scheme, "/").run().status, 200, "{scheme}");
    }
}

#[test]
fn a_sandbox_is_adopted_changed_and_deleted() {
    let stage = testbed_with_unit_rights();
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&["8.8.8.8"]);
    stage.kill_agent();
    sandbox.assert_refused("8.8.8.9");
    stage.restart_agent();
    sandbox.assert_refused("8.8.8.9");
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_refused("8.8.8.8");
    sandbox.delete();
    eventually("the sandbox is open", || {
        (sandbox.probe_tcp("8.8.8.8", test_servers::ECHO_PORT) == ProbeResult::Answered)
            .then_some(())
    })
    .or_fail("deleting the sandbox");
}

#[test]
fn other_namespaces_are_entered() {
    let stage = testbed_with_unit_rights();
    let slot = NamespacedSandbox::build("confined").or_fail("building a slot");
    let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
    let spec = slot.sandbox_spec(&json!({ "network": { "denyOut": ["8.8.8.8"] } }));
    let answer = stage.request("PUT", &path, &spec);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let tcp = |address| {
        probe::probe(
            &slot.sandbox.namespace,
            ProbeKind::Tcp(test_servers::ECHO_PORT),
            parse_ip(address),
        )
    };
    assert_eq!((tcp("8.8.8.8"), tcp("1.1.1.1")), (ProbeResult::Refused, ProbeResult::Answered));
}

#[test]
fn cleanup_and_doctor_need_no_more() {
    let stage = testbed_with_unit_rights();
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&["8.8.8.8"]);
    stage.stop_agent();
    let config = stage.agent().config_path();
    let confined = |arguments: &[&str]| {
        let launcher = SystemdUnit::read_shipped().or_fail("reading the unit").launch_prefix();
        let mut command = stage.network.host.command(&launcher[0]).or_fail("entering the host");
        command.args(&launcher[1..]).arg(agent_binary().or_fail("policy-agent"));
        command.args(arguments).arg("--config").arg(&config).output().or_fail("running it")
    };
    let doctor = String::from_utf8_lossy(&confined(&["doctor"]).stdout).into_owned();
    let privileges = doctor.lines().find(|line| line.contains("privileges"));
    assert!(privileges.is_some_and(|line| line.starts_with("ok")), "{doctor}");
    let cleanup = confined(&["cleanup"]);
    assert!(cleanup.status.success(), "{cleanup:?}");
    eventually("the sandbox is open", || {
        (sandbox.probe_tcp("8.8.8.9", test_servers::ECHO_PORT) == ProbeResult::Answered)
            .then_some(())
    })
    .or_fail("cleaning up");
    assert!(!stage.agent().bpffs().path().exists(), "pins are left");
}

/// The agent's peak memory in MiB.
fn peak_memory_mib(stage: &Testbed) -> u64 {
    let text = status_line(&process_status_path(stage), "VmHWM");
    text.trim_end_matches(" kB").parse::<u64>().or_fail("a number") / 1024
}

/// The time limit of a large request, as a multiple of [`WAIT_LIMIT`]. The agent is built without
/// optimisation.
const LARGE_REQUEST_TIMEOUT_FACTOR: u32 = 4;

/// Sends the head, this many MiB of one repeated byte, and the end. Returns the status of the
/// response.
fn send_padded_request(stage: &Testbed, begin: &str, mebibytes: usize, end: &str) -> u16 {
    let mut stream = UnixStream::connect(stage.agent().socket_path()).or_fail("connecting");
    let timeout = *WAIT_LIMIT * LARGE_REQUEST_TIMEOUT_FACTOR;
    stream.set_read_timeout(Some(timeout)).or_fail("a timeout");
    let block = vec![b'a'; 1 << 20];
    // The agent may respond before it has received everything.
    let blocks = std::iter::repeat_n(block.as_slice(), mebibytes);
    let parts = [begin.as_bytes()].into_iter().chain(blocks).chain([end.as_bytes()]);
    for part in parts {
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).or_fail("an answer");
    let status = std::str::from_utf8(&answer[9..]).ok().and_then(|text| text.parse().ok());
    status.or_fail("a status")
}

#[test]
fn what_is_too_large_is_refused_in_bounded_memory() {
    let stage = testbed_with_unit_rights();
    let path = "/agent/v1/sandboxes/web";
    let head = |fields: &str| format!("PUT {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let before = peak_memory_mib(&stage);
    let name =
        send_padded_request(&stage, "PUT /agent/v1/sandboxes/", 16, " HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!([414, 431].contains(&name), "{name}");
    let field = format!("PUT {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: ");
    assert_eq!(send_padded_request(&stage, &field, 16, "\r\n\r\n"), 431);
    let fields = "A: b\r\n".repeat(10_000);
    assert_eq!(send_padded_request(&stage, &head(&fields), 0, ""), 431);
    // A declared length that is too large is rejected before the body is read.
    assert_eq!(send_padded_request(&stage, &head("Content-Length: 1000000000000"), 0, ""), 413);
    let small = peak_memory_mib(&stage);
    assert!(small < before + 32, "{before} and then {small} MiB");
    // A body without a declared length is rejected at the limit of 64 MiB.
    let chunk = head("Transfer-Encoding: chunked") + "40000000\r\n";
    let in_json = "{\"sandboxID\":\"";
    let length = in_json.len() + (48 << 20) + 2;
    let begin = head(&format!("Content-Length: {length}")) + in_json;
    for _ in 0..3 {
        assert_eq!(send_padded_request(&stage, &chunk, 256, ""), 413);
        assert_eq!(send_padded_request(&stage, &begin, 48, "\"}"), 400);
        // The body in chunks, joined, as parsed text, and quoted in an error; twice, since the
        // allocator may not have released the memory yet.
        let large = peak_memory_mib(&stage);
        assert!(large < small + 8 * 64, "{small} and then {large} MiB");
    }
    assert!(stage.agent().is_healthy());
}
