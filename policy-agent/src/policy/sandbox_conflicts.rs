//! Detects conflicts between sandboxes: an interface, and an address in one network namespace, can
//! only belong to one sandbox. The host could not tell them apart otherwise.

use std::{collections::HashMap, hash::Hash, net::IpAddr, path::Path};

use super::{SandboxSpec, ValidationError};

/// The loopback interface, which every network namespace has. No sandbox is behind it.
pub const LOOPBACK_INTERFACE: &str = "lo";

/// The owners of interfaces and addresses. `N` identifies the network namespace, and `I` the owner.
#[derive(Clone, Debug)]
pub struct OwnershipIndex<N, I> {
    interfaces: HashMap<(N, String), I>,
    addresses: HashMap<(N, IpAddr), I>,
}

impl<N, I> Default for OwnershipIndex<N, I> {
    fn default() -> Self {
        Self { interfaces: HashMap::new(), addresses: HashMap::new() }
    }
}

impl<N: Clone + Eq + Hash, I: Clone> OwnershipIndex<N, I> {
    /// Assigns an interface and returns its previous owner.
    pub fn assign_interface(&mut self, namespace: N, name: &str, who: I) -> Option<I> {
        self.interfaces.insert((namespace, name.to_owned()), who)
    }

    /// The owner of an interface.
    pub fn interface_owner(&self, namespace: N, name: &str) -> Option<&I> {
        self.interfaces.get(&(namespace, name.to_owned()))
    }

    /// Assigns an address and returns its previous owner. A link-local IPv6 address is only valid
    /// on its link, so any number of sandboxes may have it.
    pub fn assign_address(&mut self, namespace: N, address: IpAddr, who: I) -> Option<I> {
        if is_link_local(address) {
            return None;
        }
        self.addresses.insert((namespace, address), who)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The error about an interface that another sandbox already owns.
pub fn interface_conflict(name: &str, owner: &str) -> ValidationError {
    let problem = format!("belongs to sandbox {owner}; an interface has one sandbox");
    ValidationError::about_entry("interface", name, problem)
}

/// The error about the address with this index in `addresses`, which another sandbox already owns.
pub fn address_conflict(
    place: usize,
    address: IpAddr,
    owner: &str,
    sandbox: &str,
) -> ValidationError {
    let problem = format!(
        "sandboxes {owner} and {sandbox} cannot both have it in one network namespace; give each \
         its own"
    );
    ValidationError::about_entry(format!("addresses[{place}]"), address.to_string(), problem)
}

/// Rejects a sandbox that conflicts with a previous one. Namespaces are compared by path.
pub(super) fn check_conflicts<'a>(
    claims: &mut OwnershipIndex<Option<&'a Path>, &'a str>,
    spec: &'a SandboxSpec,
) -> Result<(), ValidationError> {
    if spec.is_stopped_container() {
        return Ok(());
    }
    let (namespace, id) = (spec.netns.as_deref(), spec.sandbox_id.as_str());
    if let Some(owner) = claims.assign_interface(namespace, &spec.interface, id) {
        return Err(interface_conflict(&spec.interface, owner));
    }
    for (place, address) in spec.addresses.iter().enumerate() {
        if let Some(owner) = claims.assign_address(namespace, *address, id) {
            return Err(address_conflict(place, *address, owner, id));
        }
    }
    Ok(())
}
