//! What an engine says about a container, and where the container's interface is.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    dataplane::interfaces_towards,
    policy::{ContainerEndpoint, ContainerReference},
};

/// The part of `GET /containers/{name}/json` that matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerInspection {
    id: String,
    /// Begins with a slash.
    name: String,
    state: InspectedState,
    network_settings: NetworkSettings,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    #[serde(default)]
    pid: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    /// The file of its network namespace. Empty if it does not run.
    #[serde(default)]
    sandbox_key: String,
    networks: Option<BTreeMap<String, ContainerNetwork>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerNetwork {
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    mac_address: String,
}

impl ContainerInspection {
    /// Whether a reference means this container.
    pub(super) fn is(&self, reference: &ContainerReference) -> bool {
        self.name.trim_start_matches('/') == reference.name || self.id.starts_with(&reference.name)
    }

    /// Where the container is. `None` if it does not run. Asks the kernel, so it blocks.
    ///
    /// # Errors
    /// The container has no interface of its own on the host, or several.
    pub(super) fn endpoint(&self) -> Result<Option<ContainerEndpoint>> {
        let mode = self.host_config.network_mode.as_str();
        if mode == "host" || mode == "none" || mode.starts_with("container:") {
            bail!("its network is {mode:?}, which gives it no interface of its own on the host");
        }
        let networks = self.network_settings.networks.as_ref();
        let networks = networks.into_iter().flatten();
        let mut connected = networks.filter(|(_, network)| network.is_connected());
        let Some((_, network)) = connected.next() else { return Ok(None) };
        if let Some((other, _)) = connected.next() {
            bail!("it is in several networks ({other} is one); a sandbox has one interface");
        }
        let Some(interface) = self.host_interface()? else { return Ok(None) };
        let mac = &network.mac_address;
        let mac = (!mac.is_empty()).then(|| mac.parse()).transpose()?;
        Ok(Some(ContainerEndpoint { interface, addresses: network.addresses()?, mac }))
    }

    /// The host's end of its interface. `None` if it does not run, or has none yet.
    fn host_interface(&self) -> Result<Option<String>> {
        let Some(interfaces) =
            self.namespace_paths().find_map(|path| interfaces_towards(&path).ok())
        else {
            return Ok(None);
        };
        ensure!(interfaces.len() < 2, "several interfaces lead to it: {}", interfaces.join(", "));
        let is_running = self.state.pid != 0;
        match interfaces.into_iter().next() {
            None if is_running => bail!(
                "no interface of this host leads to it; the drivers bridge and ptp make one, macvlan \
                 and ipvlan do not"
            ),
            interface => Ok(interface),
        }
    }

    /// The files of its network namespace: the engine's, and that of its first process, for when the
    /// engine's is in another mount namespace.
    fn namespace_paths(&self) -> impl Iterator<Item = PathBuf> {
        let key = &self.network_settings.sandbox_key;
        let pid = self.state.pid;
        let key = (!key.is_empty()).then(|| PathBuf::from(key));
        key.into_iter().chain((pid != 0).then(|| format!("/proc/{pid}/ns/net").into()))
    }
}

impl ContainerNetwork {
    fn is_connected(&self) -> bool {
        !self.ip_address.is_empty() || !self.global_ipv6_address.is_empty()
    }

    fn addresses(&self) -> Result<Vec<IpAddr>> {
        let texts = [&self.ip_address, &self.global_ipv6_address];
        let given = texts.into_iter().filter(|text| !text.is_empty());
        given.map(|text| text.parse().with_context(|| format!("{text:?} is no address"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspection(mode: &str, networks: &str) -> ContainerInspection {
        let text = format!(
            r#"{{"Id":"40aa7769","Name":"/web","State":{{"Running":true,"Pid":0}},
            "NetworkSettings":{{"SandboxKey":"/nonexistent","Networks":{networks}}},
            "HostConfig":{{"NetworkMode":"{mode}"}}}}"#
        );
        serde_json::from_str(&text).expect("an inspection")
    }

    const BRIDGE: &str = r#""bridge":{"IPAddress":"172.17.0.2","GlobalIPv6Address":"","MacAddress":"02:42:ac:11:00:02"}"#;

    #[test]
    fn a_reference_is_a_name_or_the_beginning_of_an_id() {
        let web = inspection("bridge", "null");
        for (reference, is) in [("docker:web", true), ("docker:40aa", true), ("docker:we", false)] {
            assert_eq!(web.is(&reference.parse().expect("a reference")), is, "{reference}");
        }
    }

    #[test]
    fn a_container_that_has_stopped_is_nowhere() {
        for networks in ["null", "{}", r#"{"bridge":{"IPAddress":""}}"#, &format!("{{{BRIDGE}}}")] {
            assert_eq!(inspection("bridge", networks).endpoint().expect(networks), None);
        }
    }

    #[test]
    fn containers_without_one_interface_on_the_host_are_refused() {
        let two = format!(r#"{{{BRIDGE},"other":{{"IPAddress":"172.18.0.2"}}}}"#);
        for (mode, networks, problem) in [
            ("host", "{}", "no interface of its own"),
            ("container:40aa", "{}", "no interface of its own"),
            ("bridge", two.as_str(), "several networks"),
        ] {
            let error = inspection(mode, networks).endpoint().expect_err(mode).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
