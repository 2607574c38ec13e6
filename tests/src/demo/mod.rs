//! The demo: a small world, the agent in it, policies like those of the public documentation, and
//! what two sandboxes then see. For people, and by its exit code for machines.

mod internet_process;
mod keep_running;
mod output;
mod page_fetch;
mod scenario;
mod sdk_step;
mod step;

use anyhow::{Result, ensure};

pub use internet_process::serve_internet;

use crate::{
    agent::AgentProcess,
    network::{self, NetworkNamespace, Sandbox, TestNetwork},
    sdk,
    testbed::RESOLVER_CONFIG,
};
use internet_process::InternetProcess;

/// Everything the demo builds, in the order in which it is taken down.
struct DemoSetup {
    agent: AgentProcess,
    internet_process: InternetProcess,
    sandboxes: [Sandbox; 2],
    /// Behind the interface that the agent may hand out.
    pooled_sandbox: Sandbox,
    network: TestNetwork,
}

impl DemoSetup {
    fn build() -> Result<Self> {
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

    fn sandbox_by_id(&self, id: &str) -> &Sandbox {
        let [alpha, beta] = &self.sandboxes;
        if alpha.id == id { alpha } else { beta }
    }

    fn namespaces(&self) -> impl Iterator<Item = &NetworkNamespace> {
        let sandboxes = self.sandboxes.iter().chain([&self.pooled_sandbox]);
        let inside = sandboxes.map(|sandbox| &sandbox.namespace);
        [&self.network.host, &self.network.internet].into_iter().chain(inside)
    }
}

fn with_id(mut sandbox: Sandbox, id: &str) -> Sandbox {
    id.clone_into(&mut sandbox.id);
    sandbox
}

/// Runs the demo; whether every row was as expected. With `keep` the world stays.
///
/// # Errors
/// The world cannot be built, or the agent does not do as it is told.
pub fn run(keep: bool) -> Result<bool> {
    network::set_name_prefix("policy-demo");
    output::print_heading("A host, two sandboxes, an \"internet\", and the agent on the host");
    let mut demo = DemoSetup::build()?;
    let mut tally = output::DemoSummary::default();
    for act in scenario::steps() {
        act.run(&mut demo, &mut tally)?;
    }
    sdk_step::run(&demo, &mut tally)?;
    output::print_commands(&demo.agent)?;
    // Last, since an agent that was killed has forgotten what it showed.
    scenario::final_step().run(&mut demo, &mut tally)?;
    output::print_total(&tally);
    if keep {
        keep_running::leave_running(demo)?;
    }
    ensure!(tally.rows > 0, "the demo has shown nothing");
    Ok(tally.as_expected == tally.rows)
}
