//! What a network policy means, without any I/O: the forms that users write, their validation, the
//! compiled table that the kernel looks up, and the oracle that explains a verdict.
//!
//! ```text
//! manifest, schema ──► policy (cidr, name, floor, tunnel, host_mask) ──► compile ──► the kernel
//!                        └───────────────────────────────────────────► oracle  ──► explain
//! ```
//!
//! The oracle never looks at what `compile` made: tests hold one against the other. Everything
//! else in the agent may use this module; it uses nothing but `policy-common`.

mod advice;
mod authority;
mod by_name;
mod cidr;
pub mod compile;
pub mod conflict;
mod embedded;
mod endpoint;
pub mod floor;
mod host_addresses;
mod host_mask;
mod identity;
pub mod invalid;
mod json;
mod list;
mod mac_address;
pub mod manifest;
pub mod name;
mod names;
mod nameservers;
mod normalised;
mod object;
pub mod oracle;
#[expect(clippy::module_inception, reason = "the concept that gives the module its name")]
mod policy;
mod ranges;
pub mod rule;
mod sandbox_id;
pub mod schema;
mod secret;
mod similar;
mod tunnel;
mod warning;
mod whole;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod fuzz;

pub use authority::Host;
pub use by_name::by_name;
pub use cidr::ALL_TRAFFIC;
pub use compile::{Compiled, compile};
pub use endpoint::Endpoint;
pub use floor::{Floor, PLATFORM_DENY};
pub use host_mask::HostMask;
pub use invalid::Invalid;
pub use json::parse;
pub use list::MAX_ENTRIES;
pub use mac_address::MacAddress;
pub use manifest::read;
pub use name::{Name, Pattern};
pub use names::Names;
pub use nameservers::{Defaults, MAX_NAMESERVERS};
pub use normalised::{Normalised, NormalisedNetwork, NormalisedProxy};
pub use oracle::{Destination, Explanation, explain, explain_packet};
pub use policy::Policy;
pub use rule::{RuleRef, rule};
pub use sandbox_id::SandboxId;
pub use schema::{EgressProxy, NetworkConfig, ProxyTls, SandboxSpec, Unsupported};
pub use secret::Secret;
pub use similar::similar;
pub use tunnel::{Credentials, Tunnel, TunnelTls};
pub use warning::{Warning, warnings};
pub use whole::whole;
