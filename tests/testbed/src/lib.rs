//! Networks of namespaces in which the agent runs under test with real packets.
//!
//! - [`network`]: a host, an "internet" and sandboxes, each a network namespace of its own. Nothing
//!   touches the machine's own network, so public addresses are safe to use inside.
//! - [`test_servers`]: the servers in that internet.
//! - [`named_internet`]: DNS, and web servers with certificates.
//! - [`probe`]: what a program in a sandbox observes when it tries to reach something.
//! - [`packets`], [`packet_socket`]: raw frames, to send them and to check what crossed.
//! - [`public_url`]: clients of public URLs, and services behind them.
//! - [`agent`]: runs the real `policy-agent` and its command line.
//! - [`sdk`]: the E2B SDKs as the agent's clients.
//! - [`testbed`]: all of it set up for a test, with helpers that panic with the agent's log.
//! - [`mod@wait`]: waits for conditions.

pub mod agent;
pub mod named_internet;
pub mod network;
pub mod packet_socket;
pub mod packets;
pub mod probe;
pub mod public_url;
pub mod sdk;
pub mod test_servers;
pub mod testbed;
pub mod wait;
