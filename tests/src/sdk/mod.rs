//! The unmodified E2B SDKs as the agent's clients: programs of `tests/sdk/`, most of them a snippet
//! of the public documentation, and what the wire then does.
//!
//! - [`client`]: which SDKs there are, and how a program is run with one.
//! - [`program`]: a program that runs, and what it tells.
//! - [`service`]: what listens in a sandbox.
//! - [`grounds`]: a stage with sandboxes to be handed out, and sites.
//! - [`scene`]: a program on these grounds, and the sandbox that it was given.

pub mod client;
pub mod grounds;
pub mod program;
pub mod scene;
pub mod service;

pub use client::Sdk;
pub use scene::Scene;
pub use service::Service;
