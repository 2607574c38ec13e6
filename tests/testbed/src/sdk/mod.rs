//! The unmodified E2B SDKs as the agent's clients: programs of `tests/sdk/`, most of them a snippet
//! of the public documentation, and what the wire then does.
//!
//! - [`e2b_sdk`]: which SDKs there are, and how a program is run with one.
//! - [`sdk_program`]: a program that runs, and what it reports.
//! - [`header_echo_service`]: a service in a sandbox.

pub mod e2b_sdk;
pub mod header_echo_service;
pub mod sdk_program;

pub use e2b_sdk::E2bSdk;
pub use header_echo_service::HeaderEchoService;
