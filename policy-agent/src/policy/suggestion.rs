//! Suggests the smallest sensible policy that allows what was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{ALL_TRAFFIC, DomainName, Floor};

/// Siblings from which on a wildcard takes the place of names.
const WILDCARD_SIBLINGS: usize = 3;
/// Addresses in a /24 or /64 from which on the network takes their place.
const CROWDED_ADDRESSES: usize = 4;

/// A destination that a sandbox was seen to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenDestination {
    /// By name, through the egress proxy.
    Name(DomainName),
    /// By address.
    Address(IpAddr),
}

/// A policy that allows what was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySuggestion {
    /// The entries of `allowOut`: names, then networks and addresses.
    pub allow_out: Vec<String>,
    /// What a person should look at.
    pub notes: Vec<String>,
}

impl PolicySuggestion {
    /// Suggests entries for what was seen. Leaves out what the floor denies.
    #[must_use]
    pub fn for_destinations(
        seen: impl IntoIterator<Item = SeenDestination>,
        floor: &Floor,
    ) -> Self {
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        let mut suggestion = Self::default();
        for destination in seen {
            match destination {
                SeenDestination::Name(name) => {
                    names.insert(name);
                }
                SeenDestination::Address(address) if floor.admits(address) => {
                    addresses.insert(address);
                }
                SeenDestination::Address(address) => {
                    let note = format!("{address} is left out: the operator's floor denies it");
                    if !suggestion.notes.contains(&note) {
                        suggestion.notes.push(note);
                    }
                }
            }
        }
        suggestion.add_names(&names);
        suggestion.add_addresses(&addresses);
        suggestion
    }

    /// The entry of `denyOut` that the suggestion needs.
    #[must_use]
    pub const fn deny_out() -> &'static str {
        ALL_TRAFFIC
    }

    fn add_names(&mut self, names: &BTreeSet<DomainName>) {
        let mut siblings = BTreeMap::<&str, usize>::new();
        for parent in names.iter().filter_map(wildcard_parent) {
            *siblings.entry(parent).or_default() += 1;
        }
        let mut wildcards = BTreeSet::new();
        for name in names {
            let parent = wildcard_parent(name)
                .filter(|parent| siblings.get(parent).is_some_and(|it| *it >= WILDCARD_SIBLINGS));
            match parent {
                Some(parent) if wildcards.insert(parent) => {
                    let count = siblings[parent];
                    self.allow_out.push(format!("*.{parent}"));
                    self.notes.push(format!(
                        "*.{parent} stands for {count} names that were seen, and allows all others \
                         below {parent}"
                    ));
                }
                Some(_) => {}
                None => self.allow_out.push(name.to_string()),
            }
        }
    }

    fn add_addresses(&mut self, addresses: &BTreeSet<IpAddr>) {
        let mut by_network = BTreeMap::<IpNet, Vec<IpAddr>>::new();
        for address in addresses {
            by_network.entry(neighbourhood(*address)).or_default().push(*address);
        }
        for (network, members) in by_network {
            if members.len() >= CROWDED_ADDRESSES {
                self.allow_out.push(network.to_string());
                let count = members.len();
                self.notes.push(format!("{network} stands for {count} addresses that were seen"));
            } else {
                self.allow_out.extend(members.iter().map(ToString::to_string));
            }
        }
    }
}

/// The name whose wildcard would match a name. `None` if that is a public suffix by the look of it:
/// a single label, or a short label before a country's code (`co.uk`).
fn wildcard_parent(name: &DomainName) -> Option<&str> {
    let (_, parent) = name.as_str().split_once('.')?;
    let (second, top) = parent.rsplit_once('.')?;
    let is_public = !second.contains('.') && second.len() <= 3 && top.len() == 2;
    (!is_public).then_some(parent)
}

/// The network that takes the place of many addresses.
fn neighbourhood(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestion(seen: &[&str]) -> PolicySuggestion {
        let destination = |text: &&str| match text.parse() {
            Ok(address) => SeenDestination::Address(address),
            Err(_) => SeenDestination::Name(DomainName::parse(text).expect(text)),
        };
        PolicySuggestion::for_destinations(seen.iter().map(destination), &Floor::default())
    }

    #[test]
    fn names_stay_names_until_there_are_three_siblings() {
        let two = suggestion(&["a.cdn.example", "b.cdn.example", "cdn.example", "a.cdn.example"]);
        assert_eq!(two.allow_out, ["a.cdn.example", "b.cdn.example", "cdn.example"]);
        assert!(two.notes.is_empty());
        let three = suggestion(&["a.cdn.example", "b.cdn.example", "c.cdn.example", "cdn.example"]);
        assert_eq!(three.allow_out, ["*.cdn.example", "cdn.example"]);
        assert_eq!(three.notes.len(), 1);
    }

    #[test]
    fn no_wildcard_covers_a_public_suffix() {
        let names = ["a.com", "b.com", "c.com", "a.co.uk", "b.co.uk", "c.co.uk"];
        assert_eq!(suggestion(&names).allow_out.len(), names.len());
    }

    #[test]
    fn crowded_addresses_become_a_network() {
        let seen = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.9", "198.51.100.1"];
        assert_eq!(suggestion(&seen).allow_out, ["198.51.100.1", "203.0.113.0/24"]);
        assert_eq!(suggestion(&["2001:db8::1"]).allow_out, ["2001:db8::1"]);
    }

    #[test]
    fn what_the_floor_denies_is_left_out_and_said() {
        let seen = suggestion(&["169.254.169.254", "169.254.169.254", "198.51.100.1"]);
        assert_eq!(seen.allow_out, ["198.51.100.1"]);
        assert_eq!(seen.notes, ["169.254.169.254 is left out: the operator's floor denies it"]);
    }
}
