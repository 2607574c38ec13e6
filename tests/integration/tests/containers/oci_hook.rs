//! The hook of OCI runtimes: `crun` and `runc` call it before a container's process starts.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use policy_testbed::{
    agent::agent_binary,
    network::{NetworkNamespace, unique_name},
    testbed::{OrFail as _, Testbed},
};
use serde_json::{Value, json};

use crate::container_engine::ONLY_CGROUP2;

const ALLOWED: &str = "8.8.8.8";
const DENIED: &str = "1.1.1.1";
const ADDRESS: &str = "10.11.243.2";

/// Writes a bundle whose container pings an address from a network namespace that exists.
fn write_bundle(bundle: &Path, stage: &Testbed, netns: &NetworkNamespace, ping: &str, named: &str) {
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin).or_fail("a directory");
    fs::copy("/bin/busybox", bin.join("busybox")).or_fail("copying busybox");
    for mount_point in ["proc", "dev"] {
        fs::create_dir_all(bundle.join("rootfs").join(mount_point)).or_fail("a directory");
    }
    let agent = agent_binary().or_fail("the agent");
    let socket = stage.agent().socket_path();
    let hook = json!({"path": agent, "args": ["policy-agent", "--socket", socket, "oci-hook",
        "--policy-directory", bundle]});
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["/bin/busybox", "ping", "-c", "1", "-W", "1", ping],
            "capabilities": {"bounding": ["CAP_NET_RAW"], "effective": ["CAP_NET_RAW"],
                "permitted": ["CAP_NET_RAW"]},
        },
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "annotations": {"policy-agent/policy": named},
        "hooks": {"createRuntime": [hook], "poststop": [hook]},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"},
            {"type": "network", "path": netns.path()}]},
    });
    fs::write(bundle.join("config.json"), config.to_string()).or_fail("writing a bundle");
    let policy = json!({"network": {"allowOut": [ALLOWED], "denyOut": ["0.0.0.0/0"]}});
    fs::write(bundle.join("restricted.json"), policy.to_string()).or_fail("writing a policy");
}

fn link_to_host(stage: &Testbed, netns: &NetworkNamespace) {
    let batch = format!(
        "link add oci0 type veth peer name eth0 netns {}
         link set oci0 up
         addr add 10.11.243.1/24 dev oci0",
        netns.name()
    );
    stage.network.host.ip_batch(&batch).or_fail("a veth pair");
    let batch = format!(
        "addr add {ADDRESS}/24 dev eth0
         link set eth0 up
         route add default via 10.11.243.1"
    );
    netns.ip_batch(&batch).or_fail("an address");
}

fn a_container_starts_with_its_policy(runtime: &str, preparation: &str) {
    let stage = Testbed::with_config("");
    let netns = NetworkNamespace::create("oci").or_fail("a namespace");
    link_to_host(&stage, &netns);
    let directory = tempfile::tempdir().or_fail("a directory");
    let run = |role: &str, address: &str, policy: &str| {
        let bundle = directory.path().join(role);
        write_bundle(&bundle, &stage, &netns, address, policy);
        let mut command: Command = stage.network.host.command("unshare").or_fail("a command");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("{preparation}exec \"$0\" \"$@\"")).arg(runtime);
        command.arg("--root").arg(directory.path().join("state")).args(["run", "--bundle"]);
        command.arg(&bundle).arg(unique_name(role)).stdin(Stdio::null());
        command.output().or_fail("the runtime")
    };
    let allowed = run("allowed", ALLOWED, "restricted");
    assert!(allowed.status.success(), "{allowed:?}");
    let denied = run("denied", DENIED, "restricted");
    let said = String::from_utf8_lossy(&denied.stdout).into_owned();
    assert!(said.contains("PING") && said.contains("100% packet loss"), "it ran: {denied:?}");
    let list = stage.request("GET", "/agent/v1/sandboxes", &Value::Null).json();
    assert_eq!(list, json!([]), "the hook poststop has deleted them");
    let refused = run("refused", ALLOWED, "absent");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!said.contains("PING"), "it does not start without its policy: {refused:?}");
}

#[test]
fn a_container_of_crun_starts_with_its_policy() {
    a_container_starts_with_its_policy("crun", ONLY_CGROUP2);
}

#[test]
fn a_container_of_runc_starts_with_its_policy() {
    a_container_starts_with_its_policy("runc", "");
}
