//! The setup of the demo: a small network, the agent in it, three sandboxes, and one for the
//! pool.

use std::{fs::File, io::Write as _};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{internet_process::InternetProcess, output};
use policy_testbed::{
    agent::AgentProcess,
    named_internet::curl::CA_FILE,
    network::{NetworkNamespace, Sandbox, TestNetwork},
    sdk,
    testbed::RESOLVER_CONFIG,
};

/// Everything that the demo builds, in the order in which it is dropped.
pub(crate) struct DemoSetup {
    pub(crate) agent: AgentProcess,
    pub(crate) internet_process: InternetProcess,
    pub(crate) sandboxes: [Sandbox; 3],
    /// Behind the pooled interface.
    pub(crate) pooled_sandbox: Sandbox,
    pub(crate) network: TestNetwork,
}

impl DemoSetup {
    pub(crate) fn build() -> Result<Self> {
        let network = TestNetwork::build()?;
        let sandboxes = ["alpha", "beta", "gamma"];
        let [alpha, beta, gamma] =
            sandboxes.map(|id| network.add_sandbox().map(|sandbox| with_id(sandbox, id)));
        let sandboxes = [alpha?, beta?, gamma?];
        let slot = network.add_sandbox()?;
        let config = [
            RESOLVER_CONFIG,
            &sdk::e2b_sdk::agent_config(),
            &sdk::e2b_sdk::pool_interface_config(slot.addressing),
        ];
        let mut agent = AgentProcess::configure(&config.concat())?;
        trust_authority(&agent)?;
        let answering = InternetProcess::start(&network.internet, agent.directory())?;
        agent.start(&network.host)?;
        Ok(Self { agent, internet_process: answering, sandboxes, pooled_sandbox: slot, network })
    }

    pub(crate) fn sandbox_by_id(&self, id: &str) -> &Sandbox {
        let [first, others @ ..] = &self.sandboxes;
        others.iter().find(|sandbox| sandbox.id == id).unwrap_or(first)
    }

    /// Applies a configuration to a sandbox, and prints it.
    pub(crate) fn apply(&self, id: &str, config: &Value) -> Result<()> {
        let spec = self.sandbox_by_id(id).sandbox_spec(config).to_string();
        let ran = self.agent.cli_with_stdin(&["apply", "-f", "-"], &spec)?;
        ensure!(
            ran.exit_code == 0,
            "`policy-agent apply` ended with {}: {}",
            ran.exit_code,
            ran.stderr
        );
        output::print_applied(id, config);
        Ok(())
    }

    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &NetworkNamespace> {
        let sandboxes = self.sandboxes.iter().chain([&self.pooled_sandbox]);
        let inside = sandboxes.map(|sandbox| &sandbox.namespace);
        [&self.network.host, &self.network.internet].into_iter().chain(inside)
    }
}

/// Lets the agent trust the internet's servers, whose authority will be in the agent's directory.
fn trust_authority(agent: &AgentProcess) -> Result<()> {
    let mut config = File::options().append(true).open(agent.config_path())?;
    writeln!(config, "[rules]\nextra_roots = {:?}", agent.directory().join(CA_FILE))?;
    Ok(())
}

fn with_id(mut sandbox: Sandbox, id: &str) -> Sandbox {
    id.clone_into(&mut sandbox.id);
    sandbox
}
