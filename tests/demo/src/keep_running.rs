//! `--keep`: keeps the network and the agent running for experiments.

#![expect(clippy::print_stdout, reason = "a demo prints")]

use std::{fs, mem};

use anyhow::{Context as _, Result};

use super::{output, setup::DemoSetup};
use policy_testbed::{agent, named_internet::curl::CA_FILE, network::unique_name};

/// Leaves everything running, and prints how to use it and how to remove it.
pub(crate) fn leave_running(demo: DemoSetup) -> Result<()> {
    let script = std::env::temp_dir().join(format!("{}.sh", unique_name("clean-up")));
    fs::write(&script, clean_up_script(&demo)?)
        .with_context(|| format!("writing {}", script.display()))?;
    let [alpha, beta, gamma] = &demo.sandboxes;
    output::print_heading("It all stays. Try it by hand, as root:");
    println!(
        "   export POLICY_AGENT_SOCKET={socket}
   alias policy-agent={binary}
   policy-agent get
   alias alpha=\"{alpha}\"
   alias beta=\"{beta}\"
   alias gamma=\"{gamma}\"
   alpha curl --max-time 3 http://1.1.1.1/
   alpha curl --max-time 3 http://203.0.113.10/
   beta ping -c1 8.8.8.8
   beta curl --max-time 3 --cacert {ca} --resolve '*:443:203.0.113.10' https://shop.example/
   beta curl --max-time 3 --resolve '*:80:203.0.113.10' http://evil.test/
   the agent's log      {log}
   the host             {host}
   the internet         {internet}

   Clean up with        sh {script}",
        socket = demo.agent.socket_path().display(),
        binary = agent::agent_binary()?.display(),
        alpha = alpha.namespace.enter_command(),
        beta = beta.namespace.enter_command(),
        gamma = gamma.namespace.enter_command(),
        ca = demo.agent.directory().join(CA_FILE).display(),
        log = demo.agent.log_path().display(),
        host = demo.network.host.enter_command(),
        internet = demo.network.internet.enter_command(),
        script = script.display(),
    );
    // Nothing is dropped, so nothing is removed.
    mem::forget(demo);
    Ok(())
}

/// A script that removes what dropping the demo would remove.
fn clean_up_script(demo: &DemoSetup) -> Result<String> {
    let agent = demo.agent.pid().context("the agent does not run")?;
    let bpffs = demo.agent.bpffs();
    let mut script = format!("#!/bin/sh\nkill {agent} {}\n", demo.internet_process.pid());
    for namespace in demo.namespaces() {
        script += &format!("ip netns del {}\n", namespace.name());
    }
    script += &format!("rm -rf '{}'\n", bpffs.path().display());
    if let Some(mounted) = bpffs.own_mount() {
        script += &format!("umount '{0}' && rmdir '{0}'\n", mounted.display());
    }
    script += &format!("rm -rf '{}'\nrm -f \"$0\"\n", demo.agent.directory().display());
    Ok(script)
}
