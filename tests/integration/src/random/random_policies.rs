//! Random network configurations and floors.

use fastrand::Rng;
use ipnet::IpNet;
use policy_agent::policy::{Floor, Policy};
use policy_oracle::FloorLists;
use serde_json::{Value, json};

use super::random_addresses;
use crate::oracle_input;

/// A configuration, its policy, and its prefixes.
pub struct RandomPolicy {
    /// The network configuration.
    pub network: Value,
    /// The value of `allowInternetAccess`.
    pub internet: Option<bool>,
    /// The agent's reading of it.
    pub policy: Policy,
    /// The floor below the policy.
    pub floor_lists: FloorLists,
    /// The agent's reading of the floor.
    pub floor: Floor,
    /// The prefixes of the configuration and the floor.
    pub nets: Vec<IpNet>,
}

/// A random floor.
pub fn random_floor_or_default(rng: &mut Rng) -> FloorLists {
    let mut lists = if rng.bool() { FloorLists::default() } else { random_floor(rng) };
    if rng.bool() {
        lists.host_addresses = net_strings(&random_nets(rng, 4));
    }
    lists
}

fn random_floor(rng: &mut Rng) -> FloorLists {
    let list = |rng: &mut Rng, most| net_strings(&random_nets(rng, most));
    FloorLists {
        platform_allow: list(rng, 3),
        platform_deny: Some(list(rng, 12)),
        platform_deny_add: list(rng, 3),
        host_addresses: Vec::new(),
    }
}

/// A random configuration with up to `most` entries per list.
pub fn random_policy(rng: &mut Rng, floor_lists: &FloorLists, most: usize) -> RandomPolicy {
    let floor = oracle_input::agent_floor(floor_lists);
    loop {
        let (allow, deny) = (random_nets(rng, most), random_nets(rng, most));
        let network = random_network(rng, &allow, &deny);
        let internet = (rng.u8(..8) == 0).then_some(false);
        // Some are invalid: a tunnel to an address in the floor.
        if let Ok(policy) = oracle_input::agent_policy(&network, internet, &floor) {
            let lists =
                [&*floor.allow, &*floor.deny, &*floor.deny_add, &*floor.host_addresses].concat();
            let mut nets = [allow, deny, lists].concat();
            // There are few nameservers among the prefixes, so name them more than once.
            let servers = policy.nameservers().iter().map(|address| IpNet::from(*address));
            nets.extend(servers.cycle().take(policy.nameservers().len() * 4));
            let floor_lists = floor_lists.clone();
            return RandomPolicy { network, internet, policy, floor_lists, floor, nets };
        }
    }
}

fn random_network(rng: &mut Rng, allow: &[IpNet], deny: &[IpNet]) -> Value {
    let (mut allow, mut deny) = (net_strings(allow), net_strings(deny));
    let names = rng.u8(..4) == 0;
    let mut network = json!({});
    if names {
        allow.push("*.example.com".to_owned());
        if rng.bool() {
            network["dnsServers"] = json!(["9.9.9.9", "2620:fe::9"]);
        }
    }
    if names || rng.u8(..3) == 0 {
        deny.insert(rng.usize(..=deny.len()), "0.0.0.0/0".to_owned());
    } else if rng.u8(..8) == 0 {
        deny.push("::/0".to_owned());
    }
    if rng.u8(..16) == 0 {
        allow.push("0.0.0.0/0".to_owned());
    }
    if rng.u8(..8) == 0 {
        network["egressProxy"] = json!({"address": "198.51.100.80:1080"});
    }
    network["allowOut"] = json!(allow);
    network["denyOut"] = json!(deny);
    network
}

/// Up to `most` prefixes for a list.
fn random_nets(rng: &mut Rng, most: usize) -> Vec<IpNet> {
    let count = rng.usize(..=most);
    let valid = |net: &IpNet| !net.addr().is_unspecified() && !is_mapped(net);
    std::iter::repeat_with(|| random_addresses::random_net(rng)).filter(valid).take(count).collect()
}

/// A mapped entry is read as IPv4, which other tests cover.
fn is_mapped(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some())
}

fn net_strings(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}
