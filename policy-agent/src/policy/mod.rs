//! The meaning of network policies, without any I/O: the forms that users write, their validation,
//! the compiled table for the kernel, and the evaluation that explains a verdict.
//!
//! ```text
//! manifest, schema ──► sandbox_policy (cidr, domain, floor, …) ──► compile  ──► the kernel
//!                        └───────────────────────────────────────► evaluate ──► explain
//! ```
//!
//! `evaluate` never uses the output of `compile`: tests compare the two. All other modules of the
//! agent may use this one. It imports only `policy-common`.

mod address_ranges;
mod allow_hint;
mod authority;
mod cidr;
pub mod compile;
mod container;
pub mod domain;
mod domain_set;
mod egress_proxy;
mod embedded_ipv4;
mod entry_hints;
mod entry_list;
pub mod evaluate;
mod evaluate_by_name;
pub mod floor;
mod header_rules;
mod host_and_port;
mod host_mask;
mod host_prefixes;
mod import;
mod json;
mod json_object;
mod list_edit;
mod mac_address;
pub mod manifest;
mod nameservers;
mod normalised_policy;
mod policy_mode;
mod policy_warnings;
mod proxy_tls;
mod reason_label;
mod requested_name;
pub mod rule_reference;
pub mod sandbox_conflicts;
mod sandbox_id;
mod sandbox_policy;
mod sandbox_validation;
pub mod schema;
mod secret_lookup;
mod secret_string;
mod spec_diff;
mod spelling;
mod suggestion;
pub mod validation_error;
mod whole_number;

#[cfg(test)]
mod compile_differential;
#[cfg(test)]
mod fuzz;

pub use allow_hint::AllowHint;
pub use authority::DomainOrIp;
pub use cidr::ALL_TRAFFIC;
pub use compile::{CompiledPolicy, compile_policy};
pub use container::{ContainerEndpoint, ContainerEngine, ContainerReference};
pub use domain::{DomainName, DomainPattern};
pub use domain_set::DomainSet;
pub use egress_proxy::{Socks5Credentials, Socks5Proxy, Socks5Tls};
pub use entry_list::MAX_LIST_ENTRIES;
pub use evaluate::{Explanation, FlowDestination, evaluate_connection, evaluate_packet};
pub use evaluate_by_name::evaluate_by_name;
pub use floor::{DEFAULT_PLATFORM_DENY, Floor};
pub use header_rules::{
    HeaderRule, HeaderRules, HeaderTemplate, NetworkRule, NetworkRules, NetworkTransform,
    RenderError, RuleLimits,
};
pub use host_and_port::HostAndPort;
pub use host_mask::HostMask;
pub use import::{ImportFormat, ImportedPolicy};
pub use json::parse_json;
pub use list_edit::{EditableList, ListChange, ListEdit, TemporaryEntry};
pub use mac_address::MacAddress;
pub use manifest::{parse_manifest, parse_yaml_manifest};
pub use nameservers::PolicyDefaults;
pub use normalised_policy::{NormalisedEgressProxy, NormalisedNetwork, NormalisedPolicy};
pub use policy_mode::PolicyMode;
pub use policy_warnings::{PolicyWarning, policy_warnings};
pub use proxy_tls::ProxyTls;
pub use reason_label::parse_reason_label;
pub use requested_name::RequestedName;
pub use rule_reference::{RuleRef, resolve_rule};
pub use sandbox_conflicts::LOOPBACK_INTERFACE;
pub use sandbox_id::SandboxId;
pub use sandbox_policy::Policy;
pub use schema::{EgressProxy, NetworkConfig, SandboxSpec};
pub use secret_lookup::{SECRET_ID_PREFIX, SecretLookup, SecretName, SecretValue};
pub use secret_string::SecretString;
pub use spec_diff::SpecDiff;
pub use spelling::closest_name;
pub use suggestion::{PolicySuggestion, SeenDestination};
pub use validation_error::ValidationError;
pub use whole_number::whole_number;
