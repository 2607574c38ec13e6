//! The agent that gives every sandbox its network policy.
//!
//! Arrows point one way: `policy` (pure: what a policy means) ← `dataplane` (the only user of the
//! kernel's BPF) ← `agent` (desired against actual state) ← `api` ← `daemon`
//! (puts the parts together) ← `cli`. Beside them `containers` (where the engines say they are), `config`
//! (files), `events` and `metrics` (what is seen), `doctor` (for `cli`).

pub mod agent;
pub mod api;
pub mod build_info;
pub mod ca;
pub mod cli;
pub mod config;
mod containers;
mod daemon;
pub mod dataplane;
#[cfg(test)]
mod docs;
pub mod doctor;
mod envd;
pub mod events;
#[cfg(test)]
mod fuzz;
pub mod gateway;
mod hex;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod policy;
mod private_file;
pub mod proxy;
pub mod runtimes;
pub mod secrets;
pub mod traffic_workers;
