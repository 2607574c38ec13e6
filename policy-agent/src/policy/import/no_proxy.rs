//! The value of `NO_PROXY`, where a name stands for itself and all below it.

use super::{ImportedPolicy, host_list};

pub(super) fn read(text: &str) -> ImportedPolicy {
    let value = text.trim();
    let value = value.split_once('=').map_or(value, |(_, value)| value);
    let mut policy = ImportedPolicy::default();
    for entry in host_list::entries(value) {
        policy.allow(entry);
        let is_name = entry.parse::<std::net::IpAddr>().is_err() && !entry.contains('/');
        if is_name && !entry.starts_with(['.', '*']) && entry != "localhost" {
            policy.allow(&format!("*.{entry}"));
        }
    }
    policy.deny_everything_else()
}
