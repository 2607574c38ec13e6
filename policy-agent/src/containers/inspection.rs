//! What an engine says about a container, and where the container's interface is.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::{dataplane::interfaces_towards, policy::ContainerEndpoint};

/// The part of `GET /containers/{name}/json` that matters here.
#[derive(Clone, Debug, Deserialize)]
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

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    #[serde(default)]
    pid: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    /// The file of its network namespace. Empty if it does not run.
    #[serde(default)]
    sandbox_key: String,
    networks: Option<BTreeMap<String, ContainerNetwork>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerNetwork {
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    mac_address: String,
}

impl ContainerInspection {
    /// The container's name.
    pub(super) fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }

    /// Whether the same container has the same first process.
    pub(super) fn is_same_run(&self, other: &Self) -> bool {
        (&self.id, self.state.pid) == (&other.id, other.state.pid)
    }

    /// The engine's file of its network namespace. `None` if the container does not run, or the file
    /// is in another mount namespace.
    pub(super) fn open_namespace(&self) -> Option<File> {
        let file = File::open(&self.network_settings.sandbox_key).ok()?;
        let device = fs::metadata("/proc/self/ns/net").ok()?.dev();
        (file.metadata().ok()?.dev() == device).then_some(file)
    }

    /// The network namespace of its first process, which may have ended since, and another have its
    /// number. `None` if the container does not run.
    ///
    /// # Errors
    /// There is no such process any more, or its file cannot be opened.
    pub(super) fn open_process_namespace(&self) -> Result<Option<File>> {
        let pid = self.state.pid;
        let file = (pid != 0).then(|| File::open(format!("/proc/{pid}/ns/net")));
        file.transpose().context("its network namespace cannot be opened")
    }

    /// Where the container with this network namespace is. `None` if it does not run. Asks the
    /// kernel, so it blocks.
    ///
    /// # Errors
    /// The container has no interface of its own on the host, or several.
    pub(super) fn endpoint(&self, namespace: Option<&File>) -> Result<Option<ContainerEndpoint>> {
        let mode = self.host_config.network_mode.as_str();
        if mode == "host" || mode == "none" || mode.starts_with("container:") {
            bail!("its network is {mode:?}, which gives it no interface of its own on the host");
        }
        let networks = self.network_settings.networks.as_ref();
        let networks = networks.into_iter().flatten();
        let mut connected = networks.filter(|(_, network)| network.is_connected());
        let Some((_, network)) = connected.next() else { return Ok(None) };
        if let Some((other, _)) = connected.next() {
            bail!(
                "it is in several networks ({other} is one); a sandbox has one interface: `network \
                 disconnect` the others"
            );
        }
        let Some(interface) = self.host_interface(namespace)? else { return Ok(None) };
        let mac = &network.mac_address;
        let mac = (!mac.is_empty()).then(|| mac.parse()).transpose()?;
        Ok(Some(ContainerEndpoint { interface, addresses: network.addresses()?, mac }))
    }

    /// The host's end of its interface. `None` if it does not run, or has none yet.
    fn host_interface(&self, namespace: Option<&File>) -> Result<Option<String>> {
        let Some(namespace) = namespace else { return Ok(None) };
        let interfaces = interfaces_towards(namespace)?;
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
    fn another_process_or_container_is_another_run() {
        let first = inspection("bridge", "null");
        let (mut restarted, mut replaced) = (first.clone(), first.clone());
        assert!(first.is_same_run(&restarted));
        restarted.state.pid = 7;
        replaced.id = "50bb".to_owned();
        assert!(!first.is_same_run(&restarted) && !first.is_same_run(&replaced));
    }

    #[test]
    fn only_a_namespace_is_opened_as_one() {
        let mut web = inspection("bridge", "null");
        for (path, is_one) in [("/proc/self/ns/net", true), ("/proc/self/stat", false), ("", false)]
        {
            path.clone_into(&mut web.network_settings.sandbox_key);
            assert_eq!(web.open_namespace().is_some(), is_one, "{path}");
        }
        assert!(web.open_process_namespace().expect("no process").is_none());
        web.state.pid = u32::MAX;
        web.open_process_namespace().expect_err("no such process");
    }

    #[test]
    fn a_container_that_has_stopped_is_nowhere() {
        for networks in ["null", "{}", r#"{"bridge":{"IPAddress":""}}"#, &format!("{{{BRIDGE}}}")] {
            assert_eq!(inspection("bridge", networks).endpoint(None).expect(networks), None);
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
            let error = inspection(mode, networks).endpoint(None).expect_err(mode).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
