//! The agent that gives every sandbox its network policy.
//!
//! Dependencies point one way: `policy` (pure: what a policy means) ← `dataplane` (the only user of
//! the kernel's BPF) ← `agent` (reconciles desired and actual state) ← `api` and `cli`. Beside them
//! are `config` and `store` (files), `events` and `metrics` (observability), `client` and `doctor`
//! (for `cli`).

pub mod agent;
pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod dataplane;
#[cfg(test)]
mod docs;
pub mod doctor;
pub mod events;
#[cfg(test)]
mod fuzz;
pub mod gateway;
pub mod life;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod policy;
pub mod proxy;
pub mod runtimes;
pub mod store;
