//! The border between the agent and the oracle, which share no types: both get the same text, and
//! their reasons are compared by label.

use ipnet::IpNet;
use policy_agent::policy::{self, Floor, NetworkConfig, Policy, PolicyDefaults, ValidationError};
use policy_common::reason::Reason;
use policy_oracle::{FloorLists, OracleReason};
use serde_json::Value;

/// Parses the operator's lists as the agent does.
///
/// # Panics
/// An entry is invalid.
#[must_use]
pub fn agent_floor(lists: &FloorLists) -> Floor {
    let hosts: Vec<IpNet> = lists
        .host_addresses
        .iter()
        .map(|own| own.parse().unwrap_or_else(|_| panic!("{own:?} is not a prefix")))
        .collect();
    Floor::new(&lists.platform_allow, lists.platform_deny.as_deref())
        .and_then(|floor| floor.with_deny_add(&lists.platform_deny_add))
        .map(|floor| floor.with_host_addresses(&hosts))
        .unwrap_or_else(|invalid| panic!("{lists:?}: {invalid}"))
}

/// Parses a sandbox's `network` and `allowInternetAccess` as the agent does.
///
/// # Errors
/// The policy is invalid.
///
/// # Panics
/// `network` has another form than the configuration.
pub fn agent_policy(
    network: &Value,
    allow_internet_access: Option<bool>,
    floor: &Floor,
) -> Result<Policy, ValidationError> {
    let parsed: NetworkConfig = policy::parse_json(network.to_string().as_bytes())
        .unwrap_or_else(|invalid| panic!("{network}: {invalid}"));
    let defaults = PolicyDefaults { nameserver: [8, 8, 8, 8].into(), ..PolicyDefaults::default() };
    Policy::new(&parsed, allow_internet_access, &defaults, floor)
}

/// Returns the kernel's reason of the same label.
///
/// # Panics
/// There is none, or it has the opposite verdict.
#[must_use]
pub fn kernel_reason(oracle: OracleReason) -> Reason {
    let label = oracle.label();
    let same = Reason::kernel_counted().find(|reason| reason.label() == label);
    let reason = same.unwrap_or_else(|| panic!("the kernel has no reason {label}"));
    assert_eq!(reason.passes(), oracle.passes(), "whether {label} passes");
    reason
}
