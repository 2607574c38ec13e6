//! `[[interfaces]]`, which was called `[[slots]]` before: the interfaces that sandboxes are created on.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    agent::PooledInterface,
    dataplane::HostInterface,
    policy::{MacAddress, NetworkConfig, sandbox_conflicts::OwnershipIndex},
};

/// The loopback interface, which no sandbox is behind.
const LOOPBACK: &str = "lo";

/// `[[interfaces]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceConfig {
    /// Host-side interface.
    pub interface: String,
    /// Path of the network namespace that it is in; absent: the agent's own.
    pub netns: Option<PathBuf>,
    /// Addresses of the sandbox behind it.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address; absent: any.
    pub mac: Option<MacAddress>,
    /// Whether it may be an interface that the host needs for itself.
    #[serde(default)]
    pub force: bool,
}

impl InterfaceConfig {
    /// As the agent knows it.
    pub(super) fn to_pooled(&self) -> PooledInterface {
        PooledInterface {
            interface: HostInterface { name: self.interface.clone(), netns: self.netns.clone() },
            addresses: self.addresses.iter().map(IpAddr::to_canonical).collect(),
            mac: self.mac,
            force: self.force,
        }
    }
}

/// What types alone cannot say.
///
/// # Errors
/// Names the key that is wrong.
pub(super) fn check_interfaces<'a>(
    interfaces: impl Iterator<Item = (String, &'a InterfaceConfig)>,
) -> Result<()> {
    // What a sandbox's own description may say holds here, too.
    let placeholder_id = "anyone".parse().context("an ID")?;
    let mut ownership = OwnershipIndex::default();
    for (key, one) in interfaces {
        let pooled = one.to_pooled();
        let spec = pooled.sandbox_spec(&placeholder_id, NetworkConfig::default(), None);
        spec.validate().map_err(|invalid| invalid.with_field_prefix(&key))?;
        if pooled.interface.pin_name().is_none() {
            bail!("{key}.netns: is longer than 100 bytes; give it a shorter path");
        }
        if one.interface == LOOPBACK && !one.force {
            bail!("{key}.interface: \"lo\": is the loopback interface; name a tap or veth");
        }
        check_unique(&mut ownership, &key, &pooled)?;
    }
    Ok(())
}

/// An interface, and an address in a network namespace, are given once.
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
