//! An agent takes over from an older one whose pins have another ABI. `cargo xtask upgrade-test`
//! builds the older one; [`other_abi`](super::other_abi) covers the same with a fabricated layout in
//! every test run.

use std::{path::PathBuf, time::Instant};

use policy_testbed::{
    probe,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed},
};

/// The environment variable that names the older agent.
const OLDER_AGENT_VARIABLE: &str = "POLICY_OLDER_AGENT";

#[test]
#[ignore = "needs an older agent: `cargo xtask upgrade-test`"]
fn it_leaves_enforcement_and_connections_to_this_one() {
    let older = std::env::var_os(OLDER_AGENT_VARIABLE).map(PathBuf::from);
    let older = older.or_fail("POLICY_OLDER_AGENT, the path of the older agent");
    for is_killed in [false, true] {
        let stage = Testbed::without_agent("");
        stage.agent_mut().set_binary(Some(older.clone()));
        stage.restart_agent();
        let (sandbox, other) = (stage.add_sandbox(), stage.add_sandbox());
        sandbox.allow_only(&ALLOWED_ADDRESSES);
        other.allow_only(&["8.8.8.9"]);
        let before = pin_versions(&stage);
        let mut stream = sandbox.connect_echo(ALLOWED_ADDRESSES[0]);
        let tally = sandbox.start_counted_flood();
        match is_killed {
            true => stage.kill_agent(),
            false => stage.stop_agent(),
        }
        stage.agent_mut().set_binary(None);
        let begin = Instant::now();
        stage.restart_agent();
        eprintln!("took | upgrade from an older agent: start | {:.1?}", begin.elapsed());
        probe::echo(&mut stream, b"still here").or_fail("an open connection");
        assert_eq!(sandbox.status()["status"], "enforcing");
        assert_eq!(other.status()["status"], "enforcing");
        other.assert_reaches("8.8.8.9");
        other.assert_refused("8.8.8.8");
        tally.assert_no_leak_or_loss("upgrade from an older agent");
        let after = pin_versions(&stage);
        assert!(
            before != after && after.len() == 1,
            "the pins of {before:?} are replaced: {after:?}"
        );
        sandbox.allow_only(&["8.8.8.9"]);
        sandbox.assert_reaches("8.8.8.9");
        sandbox.assert_refused("8.8.8.8");
    }
}

/// The ABI versions that have pins.
fn pin_versions(stage: &Testbed) -> Vec<String> {
    let names = std::fs::read_dir(stage.agent().bpffs().path()).or_fail("listing the pins");
    let names = names.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with('v')).collect()
}
