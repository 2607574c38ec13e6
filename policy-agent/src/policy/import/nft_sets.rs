//! Sets of addresses of nftables, as `nft -j list ruleset` prints them.
//!
//! Source: libnftables-json(5).

use serde_json::Value;

use super::ImportedPolicy;

/// The types of elements that are addresses.
const ADDRESS_TYPES: [&str; 2] = ["ipv4_addr", "ipv6_addr"];

pub(super) fn read(text: &str, deny_sets: &[String]) -> Result<ImportedPolicy, String> {
    let json: Value = serde_json::from_str(text)
        .map_err(|_| "not JSON; write the output of `nft -j list ruleset` to the file")?;
    let objects = json["nftables"].as_array().ok_or("has no list `nftables`")?;
    let sets: Vec<&Value> = objects.iter().filter_map(|object| object.get("set")).collect();
    let name = |set: &Value| set["name"].as_str().unwrap_or_default().to_owned();
    for wanted in deny_sets {
        if !sets.iter().any(|set| name(set) == *wanted) {
            let known: Vec<String> = sets.iter().map(|set| name(set)).collect();
            return Err(format!("has no set {wanted}; its sets are: {}", known.join(", ")));
        }
    }
    let mut policy = ImportedPolicy::default();
    let mut allows = false;
    for set in sets {
        let denied = deny_sets.contains(&name(set));
        allows |= !denied;
        add_set(&mut policy, set, &name(set), denied);
    }
    note_rest(&mut policy, objects);
    Ok(if allows { policy.deny_everything_else() } else { policy.allow_everything_else() })
}

fn add_set(policy: &mut ImportedPolicy, set: &Value, name: &str, denied: bool) {
    if !set["type"].as_str().is_some_and(|kind| ADDRESS_TYPES.contains(&kind)) {
        return policy.skip(&format!("set {name}"), "its elements are not addresses alone");
    }
    for element in set["elem"].as_array().into_iter().flatten() {
        match element_entry(element) {
            Some(entry) if denied => policy.deny(&entry),
            Some(entry) => policy.allow(&entry),
            None => policy.skip(&element.to_string(), "it is no address, prefix or range"),
        }
    }
}

/// An element as an entry: an address, a prefix or a range, with or without a timeout or counter.
fn element_entry(element: &Value) -> Option<String> {
    let element = element.pointer("/elem/val").unwrap_or(element);
    if let Some(text) = element.as_str() {
        return Some(text.to_owned());
    }
    if let Some(prefix) = element.get("prefix") {
        return Some(format!("{}/{}", prefix["addr"].as_str()?, prefix["len"].as_u64()?));
    }
    let range = element.get("range")?.as_array()?;
    Some(format!("{}-{}", range.first()?.as_str()?, range.get(1)?.as_str()?))
}

/// Says that rules and maps are left.
fn note_rest(policy: &mut ImportedPolicy, objects: &[Value]) {
    for (kind, what) in [("rule", "rules"), ("map", "maps")] {
        let count = objects.iter().filter(|object| object.get(kind).is_some()).count();
        if count > 0 {
            policy.skip(&format!("{count} {what}"), "only sets are read");
        }
    }
}
