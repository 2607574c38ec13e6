//! Test networks made of network namespaces, in which the agent handles real packets.
//!
//! - [`network`]: a host, an "internet" and sandboxes, each in its own network namespace. Nothing
//!   touches the machine's own network, so public addresses are safe to use inside.
//! - [`test_servers`]: the servers of that internet.
//! - [`named_internet`]: DNS, and web servers with certificates.
//! - [`probe`]: what a program in a sandbox observes when it connects to an address.
//! - [`packets`], [`packet_socket`]: raw frames, to send them and to check which ones arrive.
//! - [`public_url`]: clients of public URLs, and the services behind them.
//! - [`agent`]: runs the real `policy-agent` and its command line.
//! - [`sdk`]: the E2B SDKs as clients of the agent.
//! - [`testbed`]: everything combined for a test, with helpers that panic with the agent's log.
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
