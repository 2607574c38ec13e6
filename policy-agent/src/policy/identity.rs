//! Which sandbox is meant: its interface, namespace and addresses.

use std::{collections::HashSet, net::IpAddr, path::Path};

use policy_common::sandbox::MAX_ADDRESSES;

use super::{Invalid, SandboxSpec};

/// Bytes of an interface's name, its final NUL included (`IFNAMSIZ`, linux/if.h).
const NAME_SIZE: usize = 16;

impl SandboxSpec {
    /// Checks what says *which* sandbox is meant. What it may reach is
    /// [`Policy::new`](super::Policy::new)'s to check.
    ///
    /// # Errors
    /// Names the field and entry at fault.
    pub fn validate(&self) -> Result<(), Invalid> {
        interface(&self.interface)?;
        if let Some(path) = &self.netns {
            netns(path)?;
        }
        addresses(&self.addresses)
    }
}

/// What the kernel takes (`dev_valid_name`, net/core/dev.c).
fn interface(name: &str) -> Result<(), Invalid> {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name == "." || name == ".." || name.contains(forbidden) {
        return Err(Invalid::entry("interface", name, "not the name of a network interface"));
    }
    if name.len() >= NAME_SIZE {
        return Err(Invalid::entry("interface", name, "longer than 15 bytes"));
    }
    Ok(())
}

fn netns(path: &Path) -> Result<(), Invalid> {
    let text = path.to_string_lossy();
    if !path.is_absolute() || text.contains('\0') {
        let problem = "write the absolute path of a network namespace, like /run/netns/slot1";
        return Err(Invalid::entry("netns", text, problem));
    }
    Ok(())
}

fn addresses(addresses: &[IpAddr]) -> Result<(), Invalid> {
    if addresses.is_empty() {
        return Err(Invalid::field("addresses", "name at least one address of the sandbox"));
    }
    let mut seen = HashSet::new();
    for (index, address) in addresses.iter().enumerate() {
        let refuse = |problem: &str| {
            Err(Invalid::entry(format!("addresses[{index}]"), address.to_string(), problem))
        };
        if !is_a_hosts(*address) {
            return refuse("not an address that one host can send from");
        }
        if !seen.insert(address) {
            return refuse("given twice");
        }
        let family = seen.iter().filter(|other| other.is_ipv4() == address.is_ipv4());
        if family.count() > MAX_ADDRESSES {
            return refuse("a sandbox has at most 4 addresses of each family");
        }
    }
    Ok(())
}

fn is_a_hosts(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(broadcast || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> SandboxSpec {
        SandboxSpec {
            sandbox_id: "s1".parse().expect("an ID"),
            interface: "tap0".to_owned(),
            netns: None,
            addresses: vec![IpAddr::from([10, 11, 0, 2])],
            mac: None,
            allow_internet_access: None,
            network: super::super::NetworkConfig::default(),
        }
    }

    #[test]
    fn interfaces_are_named_as_the_kernel_allows() {
        for (name, good) in [
            ("tap0", true),
            ("veth-1_a.b@c", true),
            ("exactly15bytes0", true),
            ("sixteen-bytes-00", false),
            ("", false),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("eth0:1", false),
            ("a b", false),
            ("a\0", false),
        ] {
            let sandbox = SandboxSpec { interface: name.to_owned(), ..sandbox() };
            assert_eq!(sandbox.validate().is_ok(), good, "{name:?}");
        }
    }

    #[test]
    fn namespaces_are_absolute_paths() {
        for (path, good) in
            [("/run/netns/slot1", true), ("slot1", false), ("", false), ("/run/a\0b", false)]
        {
            let sandbox = SandboxSpec { netns: Some(path.into()), ..sandbox() };
            assert_eq!(sandbox.validate().is_ok(), good, "{path:?}");
        }
    }

    #[test]
    fn addresses_are_one_to_four_of_each_family() {
        for (addresses, problem) in [
            ("10.11.0.2", None),
            ("fd00::2", None),
            ("fe80::2", None),
            ("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 fd00::1 fd00::2 fd00::3 fd00::4", None),
            ("", Some("addresses: name at least one")),
            ("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 fd00::1 10.0.0.5", Some("addresses[5]: ")),
            ("10.0.0.1 fd00::1 10.0.0.1", Some(r#"addresses[2]: "10.0.0.1": given twice"#)),
            ("0.0.0.0", Some("not an address that one host")),
            ("::", Some("not an address that one host")),
            ("127.0.0.1", Some("not an address that one host")),
            ("224.0.0.1", Some("not an address that one host")),
            ("255.255.255.255", Some("not an address that one host")),
            ("ff02::1", Some("not an address that one host")),
        ] {
            let read = addresses.split_whitespace().map(|one| one.parse().expect(one)).collect();
            let result = SandboxSpec { addresses: read, ..sandbox() }.validate();
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            match problem {
                None => assert_eq!(error, "", "{addresses}"),
                Some(problem) => assert!(error.contains(problem), "{addresses}: {error}"),
            }
        }
    }
}
