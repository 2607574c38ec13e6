//! The agent as its clients and operators use it: the HTTP API, the command line, E2B's API, invalid
//! input, and the daemon's log, signals and metrics ([`operations`]).

mod agent_api;
mod api_keys;
mod cli;
mod e2b_api;
mod invalid_network;
mod invalid_sandbox;
mod openapi;
mod operations;
mod unit_privileges;
