//! `[[interfaces]]`, formerly `[[slots]]`: the pool of interfaces on which sandboxes are created.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    agent::PooledInterface,
    dataplane::HostInterface,
    policy::{LOOPBACK_INTERFACE, MacAddress, NetworkConfig, sandbox_conflicts::OwnershipIndex},
};

/// An entry of `[[interfaces]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceConfig {
    /// The name of the host-side interface.
    pub interface: String,
    /// The path of the interface's network namespace. Default: the agent's own.
    pub netns: Option<PathBuf>,
    /// The addresses of the sandbox behind the interface.
    pub addresses: Vec<IpAddr>,
    /// The Ethernet address of the sandbox. Default: any.
    pub mac: Option<MacAddress>,
    /// Allow an interface that the host itself needs.
    #[serde(default)]
    pub force: bool,
}

impl InterfaceConfig {
    /// Converts the entry to the agent's type.
    pub(super) fn to_pooled(&self) -> PooledInterface {
        PooledInterface {
            interface: HostInterface { name: self.interface.clone(), netns: self.netns.clone() },
            addresses: self.addresses.iter().map(IpAddr::to_canonical).collect(),
            mac: self.mac,
            force: self.force,
        }
    }
}

/// Validates what the types cannot express.
///
/// # Errors
/// A key is invalid; the error names it.
pub(super) fn check_interfaces<'a>(
    interfaces: impl Iterator<Item = (String, &'a InterfaceConfig)>,
) -> Result<()> {
    // The rules for a sandbox's own description apply here, too.
    let placeholder_id = "anyone".parse().context("an ID")?;
    let mut ownership = OwnershipIndex::default();
    for (key, entry) in interfaces {
        let pooled = entry.to_pooled();
        let spec = pooled.sandbox_spec(&placeholder_id, NetworkConfig::default(), None);
        spec.validate().map_err(|invalid| invalid.with_field_prefix(&key))?;
        if pooled.interface.pin_name().is_none() {
            bail!("{key}.netns: is longer than 100 bytes; give it a shorter path");
        }
        if entry.interface == LOOPBACK_INTERFACE && !entry.force {
            bail!("{key}.interface: \"lo\": is the loopback interface; name a tap or veth");
        }
        check_unique(&mut ownership, &key, &pooled)?;
    }
    Ok(())
}

/// Rejects a duplicate interface, and a duplicate address in a network namespace.
fn check_unique(
    ownership: &mut OwnershipIndex<Option<PathBuf>, String>,
    key: &str,
    PooledInterface { interface, addresses, .. }: &PooledInterface,
) -> Result<()> {
    let namespace = || interface.netns.clone();
    if ownership.assign_interface(namespace(), &interface.name, key.to_owned()).is_some() {
        bail!("{key}.interface: {:?}: is given twice", interface.name);
    }
    for (index, address) in addresses.iter().enumerate() {
        if let Some(owner) = ownership.assign_address(namespace(), *address, key.to_owned()) {
            bail!(
                "{key}.addresses[{index}]: \"{address}\": {owner} has it already, in the same \
                 network namespace; give each its own"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        #[derive(Deserialize)]
        struct InterfacesTable {
            interfaces: Vec<InterfaceConfig>,
        }
        let table = match toml::from_str::<InterfacesTable>(text) {
            Ok(table) => table,
            Err(error) => return error.to_string(),
        };
        let keys = (0..).map(|index| format!("interfaces[{index}]"));
        let checked = check_interfaces(keys.zip(&table.interfaces));
        checked.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_wrong_is_named() {
        let one = |rest: &str| problem(&format!("[[interfaces]]\n{rest}"));
        let good = "interface = \"tap0\"\naddresses = [\"10.11.0.2\"]\n";
        assert_eq!(one(good), "");
        let none = one("interface = \"tap0\"\naddresses = []");
        assert!(none.starts_with("interfaces[0].addresses: "), "{none}");
        let slash = one("interface = \"a/b\"\naddresses = [\"10.11.0.2\"]");
        assert!(slash.starts_with("interfaces[0].interface: "), "{slash}");
        let loopback = "interface = \"lo\"\naddresses = [\"10.11.0.2\"]\n";
        assert!(one(loopback).starts_with("interfaces[0].interface: \"lo\": "));
        assert_eq!(one(&format!("{loopback}force = true")), "");
        let relative = one(&format!("{good}netns = \"slot1\""));
        assert!(relative.starts_with("interfaces[0].netns: "), "{relative}");
        let long = one(&format!("{good}netns = \"/{}\"", "n".repeat(120)));
        assert!(long.starts_with("interfaces[0].netns: "), "{long}");
        assert!(one(&format!("{good}mac = \"ff:ff:ff:ff:ff:ff\"")).contains("mac"));
        assert!(one(&format!("{good}mtu = 1500")).contains("mtu"));
        let mapped = one("interface = \"tap0\"\naddresses = [\"10.11.0.2\", \"::ffff:10.11.0.2\"]");
        assert!(mapped.starts_with("interfaces[0].addresses[1]: "), "{mapped}");
    }

    fn interface_toml(interface: &str, address: &str, netns: &str) -> String {
        format!("[[interfaces]]\ninterface = {interface:?}\naddresses = [{address:?}]\n{netns}\n")
    }

    #[test]
    fn an_interface_is_given_once() {
        let tap0 = |address: &str, netns: &str| interface_toml("tap0", address, netns);
        let netns = "netns = \"/run/a\"";
        let twice = [tap0("10.11.0.2", ""), tap0("10.11.0.2", netns), tap0("10.11.0.3", "")];
        assert_eq!(problem(&twice.concat()), "interfaces[2].interface: \"tap0\": is given twice");
    }

    #[test]
    fn an_address_is_given_once_in_a_namespace() {
        let netns = "netns = \"/run/a\"";
        let apart =
            [interface_toml("tap0", "10.11.0.2", ""), interface_toml("tap0", "10.11.0.2", netns)];
        assert_eq!(problem(&apart.concat()), "");
        let twice = [apart.concat(), interface_toml("tap1", "10.11.0.2", netns)].concat();
        let message = problem(&twice);
        let expected = "interfaces[2].addresses[0]: \"10.11.0.2\": interfaces[1] has it already";
        assert!(message.starts_with(expected), "{message}");
    }
}
