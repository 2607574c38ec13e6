//! Validates the fields that identify a sandbox: its interface, namespace and addresses.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use policy_common::endpoint::MAX_ADDRESSES_PER_FAMILY;

use super::{SandboxSpec, ValidationError};

/// Maximum length of an interface's name in bytes, including its terminating NUL (`IFNAMSIZ`,
/// linux/if.h).
const IFNAMSIZ: usize = 16;

impl SandboxSpec {
    /// Validates the fields that identify the sandbox. [`Policy::new`](super::Policy::new)
    /// validates what it may reach.
    ///
    /// # Errors
    /// A field is invalid. The error contains the field and the entry.
    pub fn validate(&self) -> Result<(), ValidationError> {
        if self.container.is_some() && self.netns.is_some() {
            let problem = "leave it out: the interface of a container is in the agent's own";
            return Err(ValidationError::about_field("netns", problem));
        }
        if self.is_stopped_container() {
            return self.check_mode();
        }
        check_interface_name(&self.interface)?;
        if let Some(path) = &self.netns {
            check_netns_path(path)?;
        }
        check_addresses(&self.addresses)?;
        self.check_mode()
    }
}

/// Checks a name like the kernel (`dev_valid_name`, net/core/dev.c).
fn check_interface_name(name: &str) -> Result<(), ValidationError> {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() {
        let problem = "is missing: write the host's end of the sandbox's interface, or `container`";
        return Err(ValidationError::about_field("interface", problem));
    }
    if name == "." || name == ".." || name.contains(forbidden) {
        return Err(ValidationError::about_entry(
            "interface",
            name,
            "not the name of a network interface",
        ));
    }
    if name.len() >= IFNAMSIZ {
        return Err(ValidationError::about_entry("interface", name, "longer than 15 bytes"));
    }
    Ok(())
}

fn check_netns_path(path: &Path) -> Result<(), ValidationError> {
    let text = path.to_string_lossy();
    if !path.is_absolute() || text.contains('\0') {
        let problem = "write the absolute path of a network namespace, like /run/netns/slot1";
        return Err(ValidationError::about_entry("netns", text, problem));
    }
    Ok(())
}

fn check_addresses(addresses: &[IpAddr]) -> Result<(), ValidationError> {
    if addresses.is_empty() {
        return Err(ValidationError::about_field(
            "addresses",
            "name at least one address of the sandbox",
        ));
    }
    let mut seen = HashSet::new();
    for (index, address) in addresses.iter().enumerate() {
        let refuse = |problem: &str| {
            Err(ValidationError::about_entry(
                format!("addresses[{index}]"),
                address.to_string(),
                problem,
            ))
        };
        if !is_host_address(*address) {
            return refuse("not an address that one host can send from");
        }
        if is_metadata_service(*address) {
            return refuse("is where a cloud's metadata service answers; give the sandbox another");
        }
        if !seen.insert(address) {
            return refuse("given twice");
        }
        let family = seen.iter().filter(|other| other.is_ipv4() == address.is_ipv4());
        if family.count() > MAX_ADDRESSES_PER_FAMILY {
            return refuse("a sandbox has at most 4 addresses of each family");
        }
    }
    Ok(())
}

fn is_host_address(address: IpAddr) -> bool {
    // 0.0.0.0/8 is "this network" (RFC 791).
    let is_reserved = |v4: Ipv4Addr| v4.is_broadcast() || v4.octets()[0] == 0;
    let is_reserved = matches!(address, IpAddr::V4(v4) if is_reserved(v4));
    !(is_reserved || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// Cloud services on the host's link, some of which provide its credentials. Sandboxes may have
/// other link-local and unique local addresses.
const METADATA_SERVICES: [IpAddr; 12] = [
    ipv4_address(169, 254, 169, 254), // AWS, Azure, Google, Oracle and others
    ipv4_address(169, 254, 169, 253), // AWS: DNS
    ipv4_address(169, 254, 169, 123), // AWS: time
    ipv4_address(169, 254, 170, 2),   // AWS: credentials of tasks
    ipv4_address(169, 254, 170, 23),  // AWS: credentials of pods
    ipv4_address(168, 63, 129, 16),   // Azure
    ipv4_address(100, 100, 100, 200), // Alibaba
    ipv6_address([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]), // AWS
    ipv6_address([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253]), // AWS: DNS
    ipv6_address([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]), // AWS: credentials of pods
    ipv6_address([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]), // Google
    ipv6_address([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]), // Oracle
];

const fn ipv4_address(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn ipv6_address([a, b, c, d, e, f, g, h]: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

fn is_metadata_service(address: IpAddr) -> bool {
    METADATA_SERVICES.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyMode;

    fn valid_spec() -> SandboxSpec {
        SandboxSpec {
            sandbox_id: "s1".parse().expect("an ID"),
            container: None,
            interface: "tap0".to_owned(),
            netns: None,
            addresses: vec![IpAddr::from([10, 11, 0, 2])],
            mac: None,
            allow_internet_access: None,
            network: super::super::NetworkConfig::default(),
            temporary: Vec::new(),
            mode: PolicyMode::Enforce,
            observe_until: None,
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
            let sandbox = SandboxSpec { interface: name.to_owned(), ..valid_spec() };
            assert_eq!(sandbox.validate().is_ok(), good, "{name:?}");
        }
    }

    #[test]
    fn namespaces_are_absolute_paths() {
        for (path, good) in
            [("/run/netns/slot1", true), ("slot1", false), ("", false), ("/run/a\0b", false)]
        {
            let sandbox = SandboxSpec { netns: Some(path.into()), ..valid_spec() };
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
            ("169.254.0.21 fd20:ce::1", None),
            ("169.254.169.254", Some("metadata service")),
            ("fd00:ec2::254", Some("metadata service")),
            ("168.63.129.16", Some("metadata service")),
            ("0.1.2.3", Some("not an address that one host")),
            ("0.0.0.0", Some("not an address that one host")),
            ("::", Some("not an address that one host")),
            ("127.0.0.1", Some("not an address that one host")),
            ("224.0.0.1", Some("not an address that one host")),
            ("255.255.255.255", Some("not an address that one host")),
            ("ff02::1", Some("not an address that one host")),
        ] {
            let read = addresses.split_whitespace().map(|one| one.parse().expect(one)).collect();
            let result = SandboxSpec { addresses: read, ..valid_spec() }.validate();
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            match problem {
                None => assert_eq!(error, "", "{addresses}"),
                Some(problem) => assert!(error.contains(problem), "{addresses}: {error}"),
            }
        }
    }
}
