//! Worlds of network namespaces in which the agent is tried with real packets.
//!
//! - [`world`]: a host, an "internet" and sandboxes, each a network namespace of its own. Nothing
//!   touches the machine's own network, so public addresses are safe to use inside.
//! - [`server`]: what answers in that internet.
//! - [`machine`]: sandboxes that are virtual machines; [`kernels`]: the tests in such machines.
//! - [`names`]: an internet with names, and web servers behind them.
//! - [`probe`]: what a program in a sandbox sees when it tries to reach something.
//! - [`wire`]: packet sockets, to send raw frames and to prove what crossed and what did not.
//! - [`fixture`]: frames that may pass and frames that may not, as data.
//! - [`gateway`]: clients of public URLs, and services behind them.
//! - [`agent`]: runs the real `policy-agent` and speaks with it.
//! - [`precedence`]: the core of the law, for every way of attaching.
//! - [`packet`], [`kernel`], [`oracle`]: one packet at a time, judged by the programs in the kernel
//!   and by a slow and obvious judge; [`random`] makes policies and packets for them.
//! - [`mod@bench`]: the same programs, timed.
//! - [`sdk`]: the E2B SDKs as the agent's clients.
//! - [`demo`]: all of it for people to look at.
//! - [`stage`]: all of it set up for a test, with helpers that panic with the full story.

pub mod agent;
pub mod bench;
pub mod demo;
pub mod fixture;
pub mod gateway;
pub mod kernel;
pub mod kernels;
pub mod machine;
pub mod names;
pub mod oracle;
pub mod packet;
pub mod patience;
pub mod precedence;
pub mod probe;
pub mod random;
pub mod sdk;
pub mod server;
pub mod stage;
pub mod wire;
pub mod world;
