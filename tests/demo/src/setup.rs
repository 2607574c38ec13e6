//! The setup of the demo: a small network, the agent in it, two sandboxes, and a third one for the
//! pool.

use anyhow::Result;

use super::internet_process::InternetProcess;
use policy_testbed::{
    agent::AgentProcess,
    network::{NetworkNamespace, Sandbox, TestNetwork},
    sdk,
    testbed::RESOLVER_CONFIG,
};

/// Everything that the demo builds, in the order in which it is dropped.
pub(crate) struct DemoSetup {
    pub(crate) agent: AgentProcess,
    pub(crate) internet_process: InternetProcess,
    pub(crate) sandboxes: [Sandbox; 2],
    /// Behind the pooled interface.
    pub(crate) pooled_sandbox: Sandbox,
    pub(crate) network: TestNetwork,
}

impl DemoSetup {
    pub(crate) fn build() -> Result<Self> {
        let network = TestNetwork::build()?;
        let sandboxes =
            [with_id(network.add_sandbox()?, "alpha"), with_id(network.add_sandbox()?, "beta")];
        let slot = network.add_sandbox()?;
        let config = [
            RESOLVER_CONFIG,
            &sdk::e2b_sdk::agent_config(),
            &sdk::e2b_sdk::pool_interface_config(slot.addressing),
        ];
        let mut agent = AgentProcess::configure(&config.concat())?;
        let answering = InternetProcess::start(&network.internet, agent.directory())?;
        agent.start(&network.host)?;
        Ok(Self { agent, internet_process: answering, sandboxes, pooled_sandbox: slot, network })
    }

    pub(crate) fn sandbox_by_id(&self, id: &str) -> &Sandbox {
        let [alpha, beta] = &self.sandboxes;
        if alpha.id == id { alpha } else { beta }
    }

    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &NetworkNamespace> {
        let sandboxes = self.sandboxes.iter().chain([&self.pooled_sandbox]);
        let inside = sandboxes.map(|sandbox| &sandbox.namespace);
        [&self.network.host, &self.network.internet].into_iter().chain(inside)
    }
}

fn with_id(mut sandbox: Sandbox, id: &str) -> Sandbox {
    id.clone_into(&mut sandbox.id);
    sandbox
}
