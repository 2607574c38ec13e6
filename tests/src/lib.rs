//! Worlds of network namespaces in which the agent is tried with real packets.
//!
//! - [`network`]: a host, an "internet" and sandboxes, each a network namespace of its own. Nothing
//!   touches the machine's own network, so public addresses are safe to use inside.
//! - [`test_servers`]: what answers in that internet.
//! - [`guest_vm`]: sandboxes that are virtual guest_vms; [`kernel_matrix`]: the tests in such guest_vms.
//! - [`named_internet`]: an internet with named_internet, and web servers behind them.
//! - [`probe`]: what a program in a sandbox sees when it tries to reach something.
//! - [`packet_socket`]: packet sockets, to send raw frames and to prove what crossed and what did not.
//! - [`frame_fixtures`]: frames that may pass and frames that may not, as data.
//! - [`public_url`]: clients of public URLs, and services behind them.
//! - [`agent`]: runs the real `policy-agent` and speaks with it.
//! - [`precedence_cases`]: the core of the law, for every way of attaching.
//! - [`packets`], [`program_runner`], [`oracle`]: one packets at a time, judged by the programs in the program_runner
//!   and by a slow and obvious judge; [`random`] makes policies and packets for them.
//! - [`mod@bench`]: the same programs, timed.
//! - [`sdk`]: the E2B SDKs as the agent's clients.
//! - [`demo`]: all of it for people to look at.
//! - [`testbed`]: all of it set up for a test, with helpers that panic with the full story.

pub mod agent;
pub mod bench;
pub mod demo;
pub mod frame_fixtures;
pub mod guest_vm;
pub mod kernel_matrix;
pub mod named_internet;
pub mod network;
pub mod oracle;
pub mod packet_socket;
pub mod packets;
pub mod precedence_cases;
pub mod probe;
pub mod program_runner;
pub mod public_url;
pub mod random;
pub mod sdk;
pub mod test_servers;
pub mod testbed;
pub mod wait;
