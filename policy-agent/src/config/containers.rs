//! `[containers]`: the container engines of this host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::containers::ContainerEngines;

/// `[containers]`: where the APIs of container engines are, for sandboxes with `container`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainersConfig {
    /// The socket of Docker Engine.
    pub docker_socket: PathBuf,
    /// The socket of Podman's API service.
    pub podman_socket: PathBuf,
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self {
            docker_socket: "/run/docker.sock".into(),
            podman_socket: "/run/podman/podman.sock".into(),
        }
    }
}

impl ContainersConfig {
    pub(super) fn engines(&self) -> ContainerEngines {
        ContainerEngines { docker: self.docker_socket.clone(), podman: self.podman_socket.clone() }
    }
}
