//! Agents that stop and start, faults around them, and interfaces and pins that other programs
//! change: no denied packet passes, and allowed traffic continues.
//!
//! `docs/reliability.md` has the figures; `--nocapture` shows those of a run.

mod adoption;
mod agent_lifecycle;
mod config_reload;
mod faults;
mod interface_changes;
mod interface_pool;
mod reconciliation;
mod record_restarts;
mod state_directory;
