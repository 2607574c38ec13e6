//! The unmodified E2B SDKs as the agent's clients: programs of `tests/sdk/`, most of them a snippet
//! of the public documentation, and what the wire then does.
//!
//! - [`e2b_sdk`]: which SDKs there are, and how a program is run with one.
//! - [`sdk_program`]: a sdk_program that runs, and what it tells.
//! - [`header_echo_service`]: what listens in a sandbox.
//! - [`sdk_testbed`]: a stage with sandboxes to be handed out, and sites.
//! - [`sdk_session`]: a program on these grounds, and the sandbox that it was given.

pub mod e2b_sdk;
pub mod header_echo_service;
pub mod sdk_program;
pub mod sdk_session;
pub mod sdk_testbed;

pub use e2b_sdk::E2bSdk;
pub use header_echo_service::HeaderEchoService;
pub use sdk_session::SdkSession;
