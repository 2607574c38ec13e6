//! The `.deb` is installed, used, upgraded while traffic flows, and removed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use policy_testbed::{
    agent::agent_binary,
    testbed::{OrFail as _, Testbed},
};

use super::debian_root::DebianRoot;

/// The files of the package that others rely on.
const INSTALLED: [&str; 9] = [
    "/usr/bin/policy-agent",
    "/etc/policy-agent.toml",
    "/usr/lib/systemd/system/policy-agent.service",
    "/usr/lib/sysusers.d/policy-agent.conf",
    "/usr/lib/tmpfiles.d/policy-agent.conf",
    "/usr/share/man/man1/policy-agent-run.1.gz",
    "/usr/share/bash-completion/completions/policy-agent",
    "/usr/share/policy-agent/policy-agent.rules.yml",
    "/usr/share/doc/policy-agent/copyright",
];

/// Makes the packages of the agent under test with this version. Returns the `.deb`.
#[track_caller]
fn make_package(directory: &Path, version: &str) -> PathBuf {
    let agent = agent_binary().or_fail("the agent");
    let xtask = agent.with_file_name("xtask");
    let mut dist = Command::new(&xtask);
    dist.args(["dist", "--deb-only", "--version", version, "--binary"]).arg(&agent);
    dist.arg("--output").arg(directory.join(version));
    let output = dist.output().or_fail("xtask");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = std::fs::read_dir(directory.join(version)).or_fail("the packages");
    let mut paths = made.flatten().map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|kind| kind == "deb")).or_fail("a package")
}

/// The status of a package in dpkg's words, or nothing.
fn package_status(root: &DebianRoot) -> String {
    let output = root.run(&["dpkg-query", "-W", "-f", "${Status} ${Version}", "policy-agent"]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_package_is_installed_used_upgraded_under_load_and_removed() {
    let packages = tempfile::tempdir_in(DebianRoot::shared_directory()).or_fail("a directory");
    let [old, new] = ["0.0.1", "0.0.2"]
        .map(|version| make_package(packages.path(), version).to_string_lossy().into_owned());
    // The root holds the file systems that are mounted by now, that of the pins included.
    let stage = Testbed::without_agent("");
    let root = DebianRoot::mount();
    root.expect(&["dpkg", "--install", &old]);
    assert_eq!(package_status(&root), "install ok installed 0.0.1");
    for path in INSTALLED {
        assert!(root.has(path), "{path}");
    }
    assert_eq!(root.expect(&["stat", "-c", "%U %a", "/etc/policy-agent.toml"]), "root 600\n");
    root.expect(&["getent", "group", "policy-agent"]);
    root.expect(&["policy-agent", "config", "check", "--config", "/etc/policy-agent.toml"]);
    let unit = "/usr/lib/systemd/system/policy-agent.service";
    let unit_text = root.expect(&["cat", unit]);
    assert!(unit_text.contains("ExecStart=/usr/bin/policy-agent run"), "{unit_text}");
    assert!(unit_text.contains("Group=policy-agent"), "{unit_text}");
    root.expect(&["systemd-analyze", "verify", unit]);

    {
        let mut agent = stage.agent_mut();
        agent.set_launch_prefix(root.launch_prefix());
        agent.set_binary(Some("/usr/bin/policy-agent".into()));
    }
    stage.restart_agent();
    let sandbox = stage.add_sandbox();
    sandbox.allow_only(&policy_testbed::testbed::ALLOWED_ADDRESSES);
    sandbox.assert_refused("8.8.8.9");

    let flood = sandbox.start_counted_flood();
    root.expect(&["sh", "-c", "echo '# kept' >> /etc/policy-agent.toml"]);
    root.expect(&["dpkg", "--install", "--force-confold", &new]);
    // As its scripts do under systemd.
    stage.stop_agent();
    stage.restart_agent();
    flood.assert_no_leak_or_loss("package upgraded");
    assert_eq!(package_status(&root), "install ok installed 0.0.2");
    assert!(root.expect(&["cat", "/etc/policy-agent.toml"]).ends_with("# kept\n"));
    sandbox.allow_only(&policy_testbed::testbed::ALLOWED_ADDRESSES);
    sandbox.assert_refused("8.8.8.9");
    sandbox.delete();
    stage.stop_agent();

    root.expect(&["dpkg", "--remove", "policy-agent"]);
    assert!(!root.has("/usr/bin/policy-agent") && root.has("/etc/policy-agent.toml"));
    root.expect(&["dpkg", "--purge", "policy-agent"]);
    for path in INSTALLED {
        assert!(!root.has(path), "{path}");
    }
}
