//! The interfaces of the agent for clients and operators: the HTTP API, the command line, E2B's
//! API, invalid input, and the daemon's log, signals and metrics ([`operations`]).

mod agent_api;
mod api_keys;
mod apply_files;
mod cli;
mod devtools;
mod e2b_api;
mod invalid_network;
mod invalid_sandbox;
mod list_edits;
mod network_rules;
mod openapi;
mod operations;
mod page;
mod sandbox_doctor;
mod secrets;
mod top;
mod unit_privileges;
