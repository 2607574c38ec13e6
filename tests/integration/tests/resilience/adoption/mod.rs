//! Agents that die, stop, are upgraded and restart while sandboxes send: no denied packet crosses,
//! and no allowed packet is lost.
//!
//! `docs/reliability.md` has the figures; `--nocapture` shows those of a run.

mod agent_restarts;
mod many_sandboxes;
mod older_agent;
mod other_abi;
mod second_agent;
