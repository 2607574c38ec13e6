//! Agents that die, stop, are upgraded and come back while sandboxes send: not one packet passes that
//! should not, and not one is lost that should pass.
//!
//! `docs/reliability.md` has the figures; `--nocapture` shows those of a run.

mod agent_restarts;
mod many_sandboxes;
mod other_abi;
mod second_agent;
