//! Policies of a given size, with destinations that they allow and destinations that they deny.
//!
//! Every allowed prefix has a bit set that is clear in every denied destination. Denied
//! destinations are made from prefixes by clearing that bit, so a lookup for them is as deep as for
//! allowed ones.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Result, anyhow};
use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use policy_agent::policy::{
    CompiledPolicy, Floor, NetworkConfig, Policy, PolicyDefaults, compile_policy,
};

/// The bit that distinguishes allowed from denied: the first bit of the third byte of an IPv4
/// address, and the first bit after the first 32 of an IPv6 address.
const V4_ALLOWED_BIT: u32 = 1 << 15;
const V6_ALLOWED_BIT: u128 = 1 << 95;

/// Allowed prefixes. Everything else is denied.
pub(crate) struct PrefixLists {
    /// IPv4 prefixes.
    pub(crate) v4: Vec<Ipv4Net>,
    /// IPv6 prefixes.
    pub(crate) v6: Vec<Ipv6Net>,
}

impl PrefixLists {
    /// Creates the given number of prefixes of each family. The same seed gives the same prefixes.
    pub(crate) fn new(v4: usize, v6: usize, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        Self {
            v4: distinct(v4, || random_v4_net(&mut rng)),
            v6: distinct(v6, || random_v6_net(&mut rng)),
        }
    }

    /// The configuration that allows the prefixes and denies everything else.
    pub(crate) fn network_config(&self, also: &[IpNet]) -> NetworkConfig {
        let all = self
            .v4
            .iter()
            .copied()
            .map(IpNet::from)
            .chain(self.v6.iter().copied().map(IpNet::from));
        let allow = all.chain(also.iter().copied()).map(|net| net.to_string()).collect();
        NetworkConfig {
            allow_out: Some(allow),
            deny_out: Some(vec!["0.0.0.0/0".to_owned()]),
            ..NetworkConfig::default()
        }
    }

    /// Compiles the configuration.
    pub(crate) fn compile(&self, also: &[IpNet]) -> Result<CompiledPolicy> {
        compile_network(&self.network_config(also))
    }

    /// Random destinations, allowed or denied, of the same family as `like`.
    pub(crate) fn destinations(
        &self,
        like: IpAddr,
        allowed: bool,
        count: usize,
        seed: u64,
    ) -> Vec<IpAddr> {
        let mut rng = Rng::with_seed(seed);
        let v4 = |rng: &mut Rng| {
            let net = self.v4[rng.usize(..self.v4.len())];
            let bits = net.network().to_bits() | rng.u32(..) & net.hostmask().to_bits();
            Ipv4Addr::from_bits(if allowed { bits } else { bits & !V4_ALLOWED_BIT }).into()
        };
        let v6 = |rng: &mut Rng| {
            let net = self.v6[rng.usize(..self.v6.len())];
            let bits = net.network().to_bits() | rng.u128(..) & net.hostmask().to_bits();
            Ipv6Addr::from_bits(if allowed { bits } else { bits & !V6_ALLOWED_BIT }).into()
        };
        (0..count).map(|_| if like.is_ipv4() { v4(&mut rng) } else { v6(&mut rng) }).collect()
    }
}

/// Compiles a configuration under the default floor.
pub(crate) fn compile_network(network: &NetworkConfig) -> Result<CompiledPolicy> {
    let floor = Floor::default();
    let defaults = PolicyDefaults {
        nameserver: Ipv4Addr::new(8, 8, 8, 8).into(),
        ..PolicyDefaults::default()
    };
    let policy =
        Policy::new(network, None, &defaults, &floor).map_err(|invalid| anyhow!("{invalid}"))?;
    Ok(compile_policy(&policy, &floor))
}

/// Between 20.0.0.0 and 99.255.255.255, /17 to /32, most of them near /24.
fn random_v4_net(rng: &mut Rng) -> Ipv4Net {
    let bits = rng.u32(20 << 24..100 << 24) | V4_ALLOWED_BIT;
    let length = if rng.u8(..4) == 0 { rng.u8(17..=32) } else { rng.u8(22..=26) };
    Ipv4Net::new(Ipv4Addr::from_bits(bits), length).expect("a length for IPv4").trunc()
}

/// Within 2a00::/12, /33 to /64, most of them near /48.
fn random_v6_net(rng: &mut Rng) -> Ipv6Net {
    let bits = 0x2a0_u128 << 116 | rng.u128(..) >> 12 | V6_ALLOWED_BIT;
    let length = if rng.u8(..4) == 0 { rng.u8(33..=64) } else { rng.u8(44..=52) };
    Ipv6Net::new(Ipv6Addr::from_bits(bits), length).expect("a length for IPv6").trunc()
}

fn distinct<T: std::hash::Hash + Eq + Copy>(count: usize, mut next: impl FnMut() -> T) -> Vec<T> {
    let (mut seen, mut list) = (HashSet::new(), Vec::new());
    while list.len() < count {
        let item = next();
        if seen.insert(item) {
            list.push(item);
        }
    }
    list
}
