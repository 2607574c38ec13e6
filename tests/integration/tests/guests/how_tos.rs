//! The scripts of `docs/integrations`, run as their pages say.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{self, Command},
};

use policy_integration::guest_vm::VmSandbox;
use policy_testbed::{
    agent::agent_binary,
    network::{
        NetworkNamespace,
        sandbox::format_mac,
        tap_device::VirtioHeader,
        tap_relay::{FrameRelay, connect_taps},
    },
    probe::{ProbeKind, ProbeResult, probe, probe_expecting_silence},
    test_servers::ECHO_PORT,
    testbed::{OrFail as _, SharedTestbed, Testbed, parse_ip},
    wait::eventually,
};
use serde_json::Value;

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

const NETWORK: &str = r#"{"allowOut": ["8.8.8.8"], "denyOut": ["0.0.0.0/0"]}"#;
const MAC: &str = "02:fc:00:00:00:05";

/// A script in the testbed's host, with the testbed's agent.
fn script(stage: &Testbed, name: &str, arguments: &[&str]) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/examples").join(name);
    let mut command = stage.network.host.command(&path.to_string_lossy()).or_fail("a command");
    let (agent, socket) = (agent_binary().or_fail("the agent"), stage.agent().socket_path());
    let agent = format!("{} --socket {}", agent.display(), socket.display());
    command.args(arguments).env("POLICY_AGENT", agent);
    command
}

#[track_caller]
fn run(mut script: Command) -> String {
    let output = script.output().or_fail("a script");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A name for a namespace, an interface and a sandbox that no other run uses.
fn unique_id(role: &str) -> String {
    format!("{role}{}", process::id())
}

/// A guest with an address behind a tap device.
fn guest_behind_tap(
    host: &NetworkNamespace,
    tap: &str,
    address: &str,
    gateway: &str,
) -> (NetworkNamespace, FrameRelay) {
    let guest = NetworkNamespace::create("guest").or_fail("a namespace");
    let relay = connect_taps((host, tap), &guest, VirtioHeader::Off).or_fail("a tap device");
    let batch = format!(
        "link set eth0 address {MAC} up
         addr add {address}/24 dev eth0
         route add default via {gateway}"
    );
    guest.ip_batch(&batch).or_fail("an address");
    (guest, relay)
}

#[track_caller]
fn assert_enforced(guest: &NetworkNamespace) {
    let reaches = |address| probe(guest, ProbeKind::Udp(ECHO_PORT), parse_ip(address));
    // The bridge between the devices may lose the first frames.
    let answered = || (reaches("8.8.8.8") == ProbeResult::Answered).then_some(());
    eventually("what is allowed answers", answered).or_fail("the allowed address");
    let kind = ProbeKind::Udp(ECHO_PORT);
    let denied = probe_expecting_silence(guest, kind, parse_ip("1.1.1.1"));
    assert_ne!(denied, ProbeResult::Answered);
}

#[track_caller]
fn sandbox_ids(stage: &Testbed) -> Vec<String> {
    let list = stage.request("GET", "/agent/v1/sandboxes", &Value::Null).json();
    let ids = list.as_array().expect("a list").iter();
    ids.filter_map(|sandbox| sandbox["sandboxID"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_machine_of_qemu_boots_behind_the_device_of_the_script() {
    let stage = TESTBED.testbed();
    let mut machine = VmSandbox::with_tap_made_by(&stage, |machine| {
        let identity = machine.addressing;
        let gateway = format!("{}/24", identity.gateway_v4());
        let (address, mac) = (identity.v4().to_string(), format_mac(identity.mac()));
        let (id, tap) = (machine.sandbox_id(), machine.tap_name());
        run(script(&stage, "tap.sh", &[&id, &tap, &gateway, &address, &mac, NETWORK]));
    });
    machine.boot();
    assert_eq!(machine.wget("8.8.8.8").code, 0);
    assert_ne!(machine.wget("8.8.8.9").code, 0);
    assert!(machine.packet_count("deny_out") > 0, "{}", machine.status());
}

#[test]
fn firecracker_starts_behind_a_policy_with_the_configuration_of_the_script() {
    let stage = TESTBED.testbed();
    let directory = tempfile::tempdir().or_fail("a directory");
    let (seen, stand_in) = (directory.path().join("seen"), directory.path().join("firecracker"));
    let id = unique_id("fire");
    // What it is called with, and what the agent says then.
    let program = format!(
        "#!/bin/sh\nset -e\ncp \"$3\" {seen}\n$POLICY_AGENT get {id} -o json > {seen}.sandbox\n",
        seen = seen.display()
    );
    fs::write(&stand_in, program).or_fail("writing a stand-in");
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).or_fail("a mode");
    let words =
        [&*id, &*id, "10.11.251.1/24", "10.11.251.2", MAC, "vmlinux", "rootfs.ext4", NETWORK];
    let mut firecracker = script(&stage, "firecracker.sh", &words);
    firecracker.env("FIRECRACKER", &stand_in);
    run(firecracker);
    let read = |path: &Path| -> Value {
        let text = fs::read_to_string(path).or_fail("reading what was seen");
        serde_json::from_str(&text).or_fail("JSON")
    };
    let config = read(&seen);
    assert_eq!(config["network-interfaces"][0]["host_dev_name"], *id);
    assert_eq!(config["network-interfaces"][0]["guest_mac"], MAC);
    let arguments = config["boot-source"]["boot_args"].as_str().expect("arguments");
    assert!(arguments.contains("ip=10.11.251.2::10.11.251.1:255.255.255.0::eth0:off"));
    let sandbox = read(&seen.with_extension("sandbox"));
    assert_eq!(sandbox["status"], "enforcing", "{sandbox}");
    assert!(!sandbox_ids(&stage).contains(&id), "it is deleted at the end");
}

#[test]
fn a_slot_has_its_policy_inside_its_namespace() {
    let stage = TESTBED.testbed();
    let slot = unique_id("slot");
    run(script(&stage, "netns-slot.sh", &[&slot, "10.11.250.1", "10.11.250.2", NETWORK]));
    let namespace = NetworkNamespace::adopt(&slot).or_fail("the slot");
    let (guest, _relay) = guest_behind_tap(&namespace, "tap0", "10.11.0.2", "10.11.0.1");
    assert_enforced(&guest);
    assert!(sandbox_ids(&stage).contains(&slot));
    run(script(&stage, "netns-slot.sh", &[&slot, "--delete"]));
    assert!(!sandbox_ids(&stage).contains(&slot));
    assert!(!namespace.path().exists());
}

#[test]
fn a_guest_of_kata_has_the_policy_of_its_pod() {
    let stage = TESTBED.testbed();
    let pod = unique_id("pod");
    let words = [&*pod, "10.11.249.1/24", "10.11.249.2/24", MAC, NETWORK];
    run(script(&stage, "kata.sh", &words));
    let namespace = NetworkNamespace::adopt(&pod).or_fail("the pod");
    let (guest, _relay) = guest_behind_tap(&namespace, "tap0_kata", "10.11.249.2", "10.11.249.1");
    assert_enforced(&guest);
    stage.cli(&["delete", &pod]);
}
