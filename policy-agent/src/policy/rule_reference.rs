//! Resolves the deciding rule for events, which carry a reason and an index, and for `explain`.

use std::fmt;

use policy_common::{reason::Reason, verdict::NO_RULE};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use super::{Floor, Policy};

/// The list of the host's own addresses, which is not in the configuration.
const HOST_ADDRESS: &str = "host_address";

/// The name of a list. An alias, since serde would borrow a reference from what it reads.
type ListName = &'static str;

/// A rule and the list that contains it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct RuleRef {
    /// The list or setting, as written in the configuration.
    #[serde(deserialize_with = "known_list")]
    #[schema(value_type = String)]
    pub list: ListName,
    /// Index in the list, from 0. Absent for a setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// The entry in its normal form, or the setting's value.
    pub entry: String,
}

impl RuleRef {
    /// The domain with this index in `allowOut`.
    pub(super) fn from_domain(policy: &Policy, index: u32) -> Option<Self> {
        let entry = policy.allow_out().get(usize::try_from(index).ok()?)?.to_string();
        Some(Self { list: "network.allowOut", index: Some(index), entry })
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}[{index}]: {}", self.list, self.entry),
            None => write!(f, "{}: {}", self.list, self.entry),
        }
    }
}

/// The rule that an event's reason and index refer to, under the policy in force at the time.
/// `None` if no rule decided.
#[must_use]
pub fn resolve_rule(policy: &Policy, floor: &Floor, reason: Reason, index: u32) -> Option<RuleRef> {
    if index == NO_RULE {
        return setting_rule(policy, reason);
    }
    let place = usize::try_from(index).ok()?;
    let (list, entry) = match reason {
        Reason::PlatformAllow => ("platform_allow", floor.allow.get(place)?.to_string()),
        Reason::PlatformDeny => return platform_deny_rule(floor, place),
        Reason::AllowOut => ("network.allowOut", policy.allow_out().get(place)?.to_string()),
        Reason::DnsServer => ("network.dnsServers", policy.nameservers().get(place)?.to_string()),
        Reason::DenyOut | Reason::WouldDeny => {
            ("network.denyOut", policy.deny_out().get(place)?.to_string())
        }
        _ => return None,
    };
    Some(RuleRef { list, index: Some(index), entry })
}

/// Resolves rules of line 5, which have consecutive indexes. The host's own addresses are not in a
/// list.
fn platform_deny_rule(floor: &Floor, place: usize) -> Option<RuleRef> {
    if let Some(own) = floor.host_rule(place) {
        return Some(RuleRef { list: HOST_ADDRESS, index: None, entry: own.to_string() });
    }
    let (list, place, entry) = match floor.deny.get(place) {
        Some(entry) => ("platform_deny", place, entry),
        None => {
            let place = place.checked_sub(floor.deny.len())?;
            ("platform_deny_add", place, floor.deny_add.get(place)?)
        }
    };
    Some(RuleRef { list, index: Some(rule_index(place)), entry: entry.to_string() })
}

/// Resolves rules that are not in a list.
fn setting_rule(policy: &Policy, reason: Reason) -> Option<RuleRef> {
    let (list, entry) = match reason {
        Reason::DenyOut | Reason::WouldDeny if !policy.allows_internet() => {
            ("allowInternetAccess", "false".to_owned())
        }
        Reason::DnsServer if policy.uses_default_nameserver() => {
            ("default_nameserver", policy.nameservers().first()?.to_string())
        }
        _ => return None,
    };
    Some(RuleRef { list, index: None, entry })
}

/// The lists and settings that decide.
const LISTS: [&str; 9] = [
    "platform_allow",
    "platform_deny",
    "platform_deny_add",
    HOST_ADDRESS,
    "network.allowOut",
    "network.dnsServers",
    "network.denyOut",
    "allowInternetAccess",
    "default_nameserver",
];

fn known_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = LISTS.into_iter().find(|known| *known == name);
    known.ok_or_else(|| de::Error::custom(format_args!("{name:?} is no list of rules")))
}

/// Converts an index to its type in the ABI. Lists are far shorter than `u32::MAX`.
pub(super) fn rule_index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NO_RULE)
}

/// The index of the longest matching entry, or the first of several equally long ones. `lengths`
/// has an item per entry, which is `None` if the entry does not match.
pub(super) fn longest_entry<L: Ord>(lengths: impl Iterator<Item = Option<L>>) -> Option<usize> {
    let mut best: Option<(usize, L)> = None;
    for (place, length) in lengths.enumerate() {
        let Some(length) = length else { continue };
        if best.as_ref().is_none_or(|(_, longest)| length > *longest) {
            best = Some((place, length));
        }
    }
    best.map(|(place, _)| place)
}
