//! An agent that gets no more memory: the kernel refuses maps, and finally kills the process.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use policy_testbed::{
    agent::send_request_to,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed},
};
use serde_json::json;

use super::{assert_policy_can_change, report_duration};

/// The number of requests after which it must have happened.
const MAX_REQUESTS: usize = 500;

#[test]
fn an_agent_that_the_kernel_ends_for_its_memory_leaves_its_policies_in_force() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let pid = stage.agent().pid().or_fail("the agent's process");
    let group =
        MemoryCgroup::create(stage.agent().directory().file_name().or_fail("a name").as_ref());
    let tally = sandbox.start_counted_flood();
    group.limit_process(pid, 1 << 20);
    let socket = stage.agent().socket_path();
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let gone = (0..MAX_REQUESTS).any(|round| {
        let mut allowed: Vec<String> = ALLOWED_ADDRESSES.map(str::to_owned).to_vec();
        let some = (0..4000).map(|i| format!("203.{}.{}.{}", i >> 8, i & 255, round % 256));
        allowed.extend(some);
        let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allowed });
        let spec = sandbox.sandbox_spec(&json!({ "network": network })).to_string();
        send_request_to(&socket, "PUT", &path, &spec).is_err()
    });
    assert!(gone && group.oom_kills() > 0, "the kernel did not end it");
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
    stage.kill_agent();
    drop(group);
    let begin = Instant::now();
    stage.restart_agent();
    report_duration("out of memory: start", begin);
    assert_eq!(sandbox.status()["status"], "enforcing");
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    tally.assert_no_leak_or_loss("ended by the kernel for its memory");
    assert_policy_can_change(&sandbox);
}

/// A control group with little memory: of version 2 if that has the memory controller, otherwise of
/// version 1.
struct MemoryCgroup {
    directory: PathBuf,
    limit: &'static str,
    kill_counter: &'static str,
}

impl MemoryCgroup {
    #[track_caller]
    fn create(name: &Path) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let group = if controllers.split_whitespace().any(|controller| controller == "memory") {
            let switched = fs::write(root.join("cgroup.subtree_control"), "+memory");
            switched.or_fail("memory in control groups");
            Self { directory: root.join(name), limit: "memory.max", kill_counter: "memory.events" }
        } else {
            let directory = root.join("memory").join(name);
            Self { directory, limit: "memory.limit_in_bytes", kill_counter: "memory.oom_control" }
        };
        fs::create_dir(&group.directory).or_fail("making a control group");
        group
    }

    /// Limits the memory of a process from now on. It keeps what it already has.
    #[track_caller]
    fn limit_process(&self, pid: u32, bytes: u64) {
        let write = |file: &str, value: String| fs::write(self.directory.join(file), value);
        write(self.limit, bytes.to_string()).or_fail("limiting memory");
        write("cgroup.procs", pid.to_string()).or_fail("moving the agent");
    }

    /// The number of processes that the kernel has killed.
    #[track_caller]
    fn oom_kills(&self) -> u64 {
        let file = fs::read_to_string(self.directory.join(self.kill_counter)).or_fail("its events");
        let kills = file.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|number| number.trim().parse().ok()).or_fail(&file)
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("{} is left behind: {error}", self.directory.display());
        }
    }
}
