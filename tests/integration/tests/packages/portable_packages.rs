//! The tarball and the image: unpacked as their users do, and started.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use policy_testbed::{
    agent::agent_binary,
    network::unique_name,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed},
};
use serde_json::{Value, json};

use super::debian_root::DebianRoot;

const VERSION: &str = "0.0.3";
/// crun refuses machines with both versions of cgroups.
const CRUN_SCRIPT: &str = "[ -e /sys/fs/cgroup/cgroup.controllers ] || \
                           mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1; exec \"$0\" \"$@\"";

/// Makes all packages of the agent under test, and returns their directory.
#[track_caller]
fn make_packages() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in(DebianRoot::shared_directory()).or_fail("a directory");
    let agent = agent_binary().or_fail("the agent");
    let mut dist = Command::new(agent.with_file_name("xtask"));
    dist.args(["dist", "--version", VERSION, "--binary"]).arg(&agent);
    assert_success(dist.arg("--output").arg(directory.path()).output().or_fail("xtask"));
    directory
}

#[track_caller]
fn assert_success(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The digest of a file, as in image layouts.
#[track_caller]
fn digest(path: &Path) -> String {
    let line = assert_success(Command::new("sha256sum").arg(path).output().or_fail("sha256sum"));
    format!("sha256:{}", line.split_whitespace().next().unwrap_or_default())
}

#[test]
fn the_agent_of_the_unpacked_tarball_enforces() {
    let packages = make_packages();
    let mut check = Command::new("sha256sum");
    check.args(["--check", "SHA256SUMS"]).current_dir(packages.path());
    assert_success(check.output().or_fail("sha256sum"));
    // The root holds the file systems that are mounted by now, that of the pins included.
    let stage = Testbed::without_agent("");
    let root = DebianRoot::mount();
    let machine = std::env::consts::ARCH;
    let tarball = format!("policy-agent-{VERSION}-{machine}-linux.tar.gz");
    let tarball = packages.path().join(tarball).to_string_lossy().into_owned();
    root.expect(&["tar", "-C", "/opt", "-xzf", &tarball]);
    let unpacked = format!("/opt/policy-agent-{VERSION}");
    let binary = format!("{unpacked}/usr/bin/policy-agent");
    let config = format!("{unpacked}/etc/policy-agent.toml");
    root.expect(&[&binary, "config", "check", "--config", &config]);
    {
        let mut agent = stage.agent_mut();
        agent.set_launch_prefix(root.launch_prefix());
        agent.set_binary(Some(binary.into()));
    }
    stage.restart_agent();
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    sandbox.assert_refused("8.8.8.9");
    sandbox.delete();
    stage.stop_agent();
}

/// A file of an image layout, with the digest that it is named by.
#[track_caller]
fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    let name = descriptor["digest"].as_str().expect("a digest");
    let path = layout.join("blobs").join(name.replace(':', "/"));
    assert_eq!(digest(&path), name);
    assert_eq!(fs::metadata(&path).or_fail("a blob").len(), descriptor["size"]);
    path
}

#[track_caller]
fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).or_fail("reading a file")).or_fail("JSON")
}

/// The image holds the agent alone. The one under test needs the libraries of this machine.
fn mounts() -> Vec<Value> {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}),
    ];
    let present =
        ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|path| Path::new(path).exists());
    mounts.extend(present.map(|path| {
        json!({"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]})
    }));
    mounts
}

#[test]
fn the_agent_of_the_image_runs_in_a_container() {
    let packages = make_packages();
    let layout = packages.path().join(format!("policy-agent-{VERSION}.oci"));
    let manifest =
        read_json(&blob(&layout, &read_json(&layout.join("index.json"))["manifests"][0]));
    let image = read_json(&blob(&layout, &manifest["config"]));
    let bundle = tempfile::tempdir().or_fail("a directory");
    let rootfs = bundle.path().join("rootfs");
    fs::create_dir(&rootfs).or_fail("a directory");
    for layer in manifest["layers"].as_array().expect("layers") {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&rootfs).arg("-xzf").arg(blob(&layout, layer));
        assert_success(tar.output().or_fail("tar"));
    }
    let entry = image["config"]["Entrypoint"][0].as_str().expect("a program");
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": [entry, "config", "show"]},
        "root": {"path": "rootfs"},
        "mounts": mounts(),
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}]},
    });
    fs::write(bundle.path().join("config.json"), config.to_string()).or_fail("writing a bundle");
    let mut crun = Command::new("unshare");
    crun.args(["--mount", "--propagation", "private", "sh", "-c", CRUN_SCRIPT, "crun"]);
    crun.arg("--root").arg(bundle.path().join("state")).args(["run", "--bundle"]);
    crun.arg(bundle.path()).arg(unique_name("image"));
    let shown = assert_success(crun.output().or_fail("crun"));
    assert!(shown.contains("platform_deny"), "{shown}");
}
