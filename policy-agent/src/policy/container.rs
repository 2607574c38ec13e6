//! Containers of an engine: how a sandbox names one, and where one is.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{MacAddress, SandboxSpec, ValidationError};

/// The maximum length of a container's name in bytes, which the engines bound by that of a file name.
const MAX_NAME_BYTES: usize = 255;

/// What manages a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEngine {
    /// Docker Engine.
    Docker,
    /// Podman, with its API service.
    Podman,
}

impl ContainerEngine {
    /// All engines.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    /// What stands before the colon of a reference.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// A container, written `docker:NAME` or `podman:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerReference {
    /// What manages it.
    pub engine: ContainerEngine,
    /// Its name, or its ID or the beginning of it.
    pub name: String,
}

impl FromStr for ContainerReference {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        let refuse = |problem| ValidationError::about_entry("container", text, problem);
        let parts = text.split_once(':');
        let parts = parts.and_then(|(prefix, name)| {
            let mut engines = ContainerEngine::ALL.into_iter();
            Some((engines.find(|engine| engine.prefix() == prefix)?, name))
        });
        let (engine, name) = parts.ok_or_else(|| refuse("write docker:NAME or podman:NAME"))?;
        // As the engines do: [a-zA-Z0-9][a-zA-Z0-9_.-]*
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !starts_well || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
            return Err(refuse(
                "a container's name has letters, digits, and _ . - after the first",
            ));
        }
        Ok(Self { engine, name: name.to_owned() })
    }
}

impl TryFrom<String> for ContainerReference {
    type Error = String;

    /// The error contains only the problem. The position in the JSON text provides the field.
    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error: ValidationError| format!("{text:?}: {}", error.problem))
    }
}

impl From<ContainerReference> for String {
    fn from(reference: ContainerReference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for ContainerReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.engine.prefix(), self.name)
    }
}

/// Where a running container is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEndpoint {
    /// The host's end of its interface, in the agent's network namespace.
    pub interface: String,
    /// The addresses that its engine gave it.
    pub addresses: Vec<IpAddr>,
    /// The Ethernet address that its engine gave it.
    pub mac: Option<MacAddress>,
}

impl SandboxSpec {
    /// Whether this is a container that does not run, so that there is no interface.
    #[must_use]
    pub fn is_stopped_container(&self) -> bool {
        self.container.is_some() && self.interface.is_empty()
    }

    /// Puts the sandbox where its container is. `None` if the container does not run.
    pub fn move_to(&mut self, endpoint: Option<ContainerEndpoint>) {
        let stopped = ContainerEndpoint { interface: String::new(), addresses: vec![], mac: None };
        let ContainerEndpoint { interface, addresses, mac } = endpoint.unwrap_or(stopped);
        (self.interface, self.addresses, self.mac) = (interface, addresses, mac);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_engine_and_container() {
        let web: ContainerReference = "docker:my_web-1.a".parse().expect("a reference");
        assert_eq!((web.engine, web.name.as_str()), (ContainerEngine::Docker, "my_web-1.a"));
        assert_eq!(web.to_string(), "docker:my_web-1.a");
        for (wrong, problem) in [
            ("web", "write docker:NAME or podman:NAME"),
            ("lxc:web", "write docker:NAME"),
            ("docker:", "letters, digits"),
            ("docker:../x", "letters, digits"),
            ("podman:a b", "letters, digits"),
        ] {
            let error = wrong.parse::<ContainerReference>().expect_err(wrong).to_string();
            assert!(error.contains(problem), "{wrong}: {error}");
        }
    }
}
