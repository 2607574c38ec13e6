//! The unmodified E2B SDKs as clients of the agent. The programs in `tests/sdk/` are mostly
//! snippets of the public documentation.
//!
//! - [`e2b_sdk`]: the SDKs, and how to run a program with one.
//! - [`sdk_program`]: a running program and its reports.
//! - [`header_echo_service`]: a service in a sandbox.

pub mod e2b_sdk;
pub mod header_echo_service;
pub mod sdk_program;

pub use e2b_sdk::E2bSdk;
pub use header_echo_service::HeaderEchoService;
