//! `[[slots]]`: the interfaces that sandboxes are created on.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{
    agent::Berth,
    dataplane::Interface,
    policy::{MacAddress, NetworkConfig},
};

/// `[[slots]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotInterface {
    /// Host-side interface.
    pub interface: String,
    /// Path of the network namespace that it is in; absent: the agent's own.
    pub netns: Option<PathBuf>,
    /// Addresses of the sandbox behind it.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address; absent: any.
    pub mac: Option<MacAddress>,
}

impl SlotInterface {
    /// As the agent knows it.
    pub(super) fn berth(&self) -> Berth {
        Berth {
            interface: Interface { name: self.interface.clone(), netns: self.netns.clone() },
            addresses: self.addresses.iter().map(IpAddr::to_canonical).collect(),
            mac: self.mac,
        }
    }
}

/// What types alone cannot say.
///
/// # Errors
/// Names the key that is wrong.
pub(super) fn check(slots: &[SlotInterface]) -> Result<()> {
    // What a sandbox's own description may say holds here, too.
    let anyone = "anyone".parse().context("an ID")?;
    for (index, slot) in slots.iter().enumerate() {
        let key = format!("slots[{index}]");
        let berth = slot.berth();
        let spec = berth.spec(&anyone, NetworkConfig::default(), None);
        spec.validate().map_err(|invalid| invalid.within(&key))?;
        if berth.interface.gates().is_none() {
            bail!("{key}.netns: is longer than 100 bytes; give it a shorter path");
        }
        let before = &slots[..index];
        if before.iter().any(|other| other.berth().interface == berth.interface) {
            bail!("{key}.interface: {:?}: is given twice", slot.interface);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(slots: &str) -> String {
        #[derive(Deserialize)]
        struct Only {
            slots: Vec<SlotInterface>,
        }
        let read: Result<Only, _> = toml::from_str(slots);
        match read {
            Ok(only) => check(&only.slots).expect_err(slots).to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let slot = |rest: &str| problem(&format!("[[slots]]\n{rest}"));
        let good = "interface = \"tap0\"\naddresses = [\"10.11.0.2\"]\n";
        let none = slot("interface = \"tap0\"\naddresses = []");
        assert!(none.starts_with("slots[0].addresses: "), "{none}");
        let slash = slot("interface = \"a/b\"\naddresses = [\"10.11.0.2\"]");
        assert!(slash.starts_with("slots[0].interface: "), "{slash}");
        let relative = slot(&format!("{good}netns = \"slot1\""));
        assert!(relative.starts_with("slots[0].netns: "), "{relative}");
        let long = slot(&format!("{good}netns = \"/{}\"", "n".repeat(120)));
        assert!(long.starts_with("slots[0].netns: "), "{long}");
        assert!(slot(&format!("{good}mac = \"ff:ff:ff:ff:ff:ff\"")).contains("mac"));
        assert!(slot(&format!("{good}mtu = 1500")).contains("mtu"));
        let mapped =
            slot("interface = \"tap0\"\naddresses = [\"10.11.0.2\", \"::ffff:10.11.0.2\"]");
        assert!(mapped.starts_with("slots[0].addresses[1]: "), "{mapped}");
    }

    #[test]
    fn an_interface_is_given_once() {
        let slot = |netns: &str| {
            format!("[[slots]]\ninterface = \"tap0\"\naddresses = [\"10.11.0.2\"]\n{netns}\n")
        };
        let twice = problem(&[slot(""), slot("netns = \"/run/a\""), slot("")].concat());
        assert_eq!(twice, "slots[2].interface: \"tap0\": is given twice");
    }
}
