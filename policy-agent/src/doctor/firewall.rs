//! Checks whether the host's firewall lets in what the kernel redirects to the egress proxy.

use std::process::Command;

use serde_json::Value;

use super::DoctorFinding;

const WHAT: &str = "firewall";

/// Redirected connections arrive at the host's INPUT, which drops them if nothing accepts them.
pub(crate) fn check_input_chains() -> DoctorFinding {
    let output = Command::new("nft").args(["--json", "list", "chains"]).output();
    let chains = output.ok().filter(|output| output.status.success());
    let chains = chains.and_then(|output| serde_json::from_slice(&output.stdout).ok());
    match chains {
        None => DoctorFinding::ok(WHAT, "not known: nft does not list it"),
        Some(chains) => finding(&dropping_chains(&chains)),
    }
}

fn finding(dropping: &[String]) -> DoctorFinding {
    if dropping.is_empty() {
        return DoctorFinding::ok(WHAT, "no chain of nftables drops input by default");
    }
    DoctorFinding::degraded(
        WHAT,
        format!(
            "{} drops by default: domain rules and egressProxy need a rule that accepts",
            dropping.join(" and ")
        ),
        "accept TCP from the sandboxes' interfaces: to ports 80 and 443, with egressProxy to any port",
    )
}

/// The base chains at input whose policy is to drop.
fn dropping_chains(listed: &Value) -> Vec<String> {
    let objects = listed["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let chains = objects.iter().map(|object| &object["chain"]);
    let dropping = chains.filter(|chain| chain["hook"] == "input" && chain["policy"] == "drop");
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    let name = |chain: &Value| {
        format!("{} {} {}", text(chain, "family"), text(chain, "table"), text(chain, "name"))
    };
    dropping.map(name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_chain_that_drops_input_is_named() {
        let chain = |name: &str, hook: &str, policy: &str| {
            json!({ "chain": { "family": "ip", "table": "filter", "name": name, "handle": 1,
                "type": "filter", "hook": hook, "prio": 0, "policy": policy } })
        };
        let plain = json!({ "chain": { "family": "ip", "table": "filter", "name": "mine" } });
        let listed = json!({ "nftables": [
            { "metainfo": { "json_schema_version": 1 } },
            plain, chain("INPUT", "input", "drop"), chain("FORWARD", "forward", "drop"),
            chain("OTHER", "input", "accept"),
        ] });
        assert_eq!(dropping_chains(&listed), ["ip filter INPUT"]);
        assert!(finding(&dropping_chains(&listed)).found.starts_with("ip filter INPUT drops"));
        assert!(dropping_chains(&json!({})).is_empty());
    }
}
