//! Two agents at the same time.

use policy_testbed::testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed};

#[test]
fn the_second_in_a_state_directory_refuses_and_names_the_first() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let tally = sandbox.start_counted_flood();
    let pid = stage.agent().pid().or_fail("the agent's process").to_string();
    let (config, socket) = (stage.agent().config_path(), stage.agent().socket_path());
    let other = stage.agent().directory().join("other.sock");
    for socket in [&socket, &other] {
        let (config, socket) = (config.to_string_lossy(), socket.to_string_lossy());
        let second = stage.cli(&["--socket", &socket, "run", "--config", &config]);
        assert_eq!(second.exit_code, 1, "{second:?}");
        assert!(second.stderr.contains(&pid), "it names process {pid}: {second:?}");
    }
    assert_unharmed(&stage, &pid);
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    tally.assert_no_leak_or_loss("a second agent in the state directory");
}

/// Another state directory does not help: the pins have one owner.
#[test]
fn the_second_with_the_same_pins_refuses() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let tally = sandbox.start_counted_flood();
    let pid = stage.agent().pid().or_fail("the agent's process").to_string();
    let at = |name: &str| stage.agent().directory().join(name).display().to_string();
    let bpffs = stage.agent().bpffs().path().display().to_string();
    let run =
        ["--socket", &at("other.sock"), "run", "--state-dir", &at("other"), "--bpffs", &bpffs];
    let second = stage.cli(&run);
    assert_eq!(second.exit_code, 1, "{second:?}");
    assert!(second.stderr.contains(&bpffs), "it says what is taken: {second:?}");
    assert_unharmed(&stage, &pid);
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    tally.assert_no_leak_or_loss("a second agent with the same pins");
}

#[track_caller]
fn assert_unharmed(stage: &Testbed, pid: &str) {
    assert!(stage.agent().is_healthy());
    assert_eq!(stage.agent().pid().map(|pid| pid.to_string()).as_deref(), Some(pid));
}
