//! The settings of Anthropic's sandbox runtime, `~/.srt-settings.json`, and those of tools that hold
//! them under `sandbox`.

use serde_json::{Map, Value};

use super::ImportedPolicy;

pub(super) fn read(text: &str) -> Result<ImportedPolicy, String> {
    let settings: Value =
        serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let found = ["/network", "/sandbox/network"].iter().find_map(|path| settings.pointer(path));
    let network = found
        .and_then(Value::as_object)
        .ok_or("has no object `network`, with `allowedDomains` and `deniedDomains`")?;
    let mut policy = ImportedPolicy::default();
    for entry in strings(network, "allowedDomains")? {
        policy.allow(entry);
    }
    for entry in strings(network, "deniedDomains")? {
        policy.deny(entry);
    }
    for key in network.keys().filter(|key| !["allowedDomains", "deniedDomains"].contains(&&***key))
    {
        policy.skip(&format!("network.{key}"), "it is not about where a sandbox may connect to");
    }
    Ok(policy.deny_everything_else())
}

fn strings<'a>(network: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a str>, String> {
    let wrong = || format!("network.{key}: write a list of strings");
    let Some(list) = network.get(key) else { return Ok(Vec::new()) };
    let entries = list.as_array().ok_or_else(wrong)?;
    entries.iter().map(|entry| entry.as_str().ok_or_else(wrong)).collect()
}
