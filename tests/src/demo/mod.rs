//! The demo: a small world, the agent in it, policies like those of the public documentation, and
//! what two sandboxes then see. For people, and by its exit code for machines.

mod act;
mod answering;
mod client;
mod kept;
mod page;
mod script;
mod shown;

use anyhow::{Result, ensure};

pub use answering::answer_forever;

use crate::{
    agent::Agent,
    sdk,
    stage::RESOLVERS,
    world::{self, Namespace, Sandbox, World},
};
use answering::Answering;

/// Everything the demo builds, in the order in which it is taken down.
struct Demo {
    agent: Agent,
    answering: Answering,
    sandboxes: [Sandbox; 2],
    /// Behind the interface that the agent may hand out.
    slot: Sandbox,
    world: World,
}

impl Demo {
    fn build() -> Result<Self> {
        let world = World::build()?;
        let sandboxes = [named(world.sandbox()?, "alpha"), named(world.sandbox()?, "beta")];
        let slot = world.sandbox()?;
        let config = [RESOLVERS, &sdk::client::config(), &sdk::client::slot(slot.identity)];
        let mut agent = Agent::configure(&config.concat())?;
        let answering = Answering::in_namespace(&world.internet, agent.directory())?;
        agent.start(&world.host)?;
        Ok(Self { agent, answering, sandboxes, slot, world })
    }

    fn sandbox(&self, id: &str) -> &Sandbox {
        let [alpha, beta] = &self.sandboxes;
        if alpha.id == id { alpha } else { beta }
    }

    fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let sandboxes = self.sandboxes.iter().chain([&self.slot]);
        let inside = sandboxes.map(|sandbox| &sandbox.inside);
        [&self.world.host, &self.world.internet].into_iter().chain(inside)
    }
}

fn named(mut sandbox: Sandbox, id: &str) -> Sandbox {
    id.clone_into(&mut sandbox.id);
    sandbox
}

/// Runs the demo; whether every row was as expected. With `keep` the world stays.
///
/// # Errors
/// The world cannot be built, or the agent does not do as it is told.
pub fn run(keep: bool) -> Result<bool> {
    world::names_begin_with("policy-demo");
    shown::heading("A host, two sandboxes, an \"internet\", and the agent on the host");
    let mut demo = Demo::build()?;
    let mut tally = shown::Tally::default();
    for act in script::acts() {
        act.play(&mut demo, &mut tally)?;
    }
    client::play(&demo, &mut tally)?;
    shown::commands(&demo.agent)?;
    // Last, since an agent that was killed has forgotten what it showed.
    script::finale().play(&mut demo, &mut tally)?;
    shown::total(&tally);
    if keep {
        kept::leave(demo)?;
    }
    ensure!(tally.rows > 0, "the demo has shown nothing");
    Ok(tally.as_expected == tally.rows)
}
