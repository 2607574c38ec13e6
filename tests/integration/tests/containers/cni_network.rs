//! Calls CNI plugins as a container runtime does.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use policy_testbed::{
    agent::agent_binary,
    network::NetworkNamespace,
    testbed::{OrFail as _, Testbed},
};
use serde_json::{Value, json};

/// Debian's directory of CNI plugins.
const PLUGIN_DIRECTORY: &str = "/usr/lib/cni";
/// The name of a container's interface.
const INTERFACE: &str = "eth0";
/// The addresses of containers. No sandbox of the testbed has one of them.
const SUBNET: &str = "10.11.240.0/24";

/// A network of containers behind the agent of a testbed.
pub(crate) struct CniNetwork {
    pub(crate) stage: Arc<Testbed>,
    directory: tempfile::TempDir,
    /// The plugin that makes interfaces.
    plugin: &'static str,
}

/// A container: an ID, and a network namespace.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) namespace: NetworkNamespace,
}

/// How a plugin ended.
#[derive(Debug)]
pub(crate) struct PluginResult {
    pub(crate) succeeded: bool,
    pub(crate) output: Value,
}

impl CniNetwork {
    #[track_caller]
    pub(crate) fn new(plugin: &'static str) -> Self {
        let stage = Testbed::with_config("");
        let directory = tempfile::tempdir().or_fail("a directory");
        Self { stage, directory, plugin }
    }

    /// Writes a named policy.
    #[track_caller]
    pub(crate) fn write_policy(&self, name: &str, policy: &Value) {
        let path = self.directory.path().join(format!("{name}.json"));
        fs::write(path, policy.to_string()).or_fail("writing a policy");
    }

    #[track_caller]
    pub(crate) fn container(&self, role: &str) -> Container {
        let namespace = NetworkNamespace::create(role).or_fail("a namespace");
        // As containerd's: 64 hexadecimal digits.
        let digits: String = role.bytes().map(|byte| format!("{byte:02x}")).collect();
        Container { id: format!("{digits:0<64}"), namespace }
    }

    /// Makes the interface of a container.
    #[track_caller]
    pub(crate) fn make_interface(&self, container: &Container) -> Value {
        let made = self.call_maker("ADD", container);
        assert!(made.succeeded, "{made:?}");
        made.output
    }

    /// Removes the interface of a container.
    #[track_caller]
    pub(crate) fn remove_interface(&self, container: &Container) {
        let removed = self.call_maker("DEL", container);
        assert!(removed.succeeded, "{removed:?}");
    }

    #[track_caller]
    fn call_maker(&self, command: &str, container: &Container) -> PluginResult {
        let config = json!({
            "cniVersion": "1.0.0", "name": "sandboxes", "type": self.plugin,
            "bridge": "cni0", "isGateway": true,
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": SUBNET}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": self.directory.path().join("leases"),
            },
        });
        self.call(command, &Path::new(PLUGIN_DIRECTORY).join(self.plugin), container, &config)
    }

    /// Calls the agent's plugin, with `keys` in its configuration.
    #[track_caller]
    pub(crate) fn call_agent(
        &self,
        command: &str,
        container: &Container,
        keys: &Value,
    ) -> PluginResult {
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "sandboxes", "type": "policy-agent",
            "socket": self.stage.agent().socket_path(),
            "policyDirectory": self.directory.path(),
        });
        for (key, value) in keys.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let plugin: PathBuf = agent_binary().or_fail("the agent");
        self.call(command, &plugin, container, &config)
    }

    #[track_caller]
    fn call(
        &self,
        command: &str,
        plugin: &Path,
        container: &Container,
        config: &Value,
    ) -> PluginResult {
        let host = &self.stage.network.host;
        let mut call: Command = host.command(&plugin.to_string_lossy()).or_fail("a command");
        call.env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &container.id)
            .env("CNI_NETNS", container.namespace.path())
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", PLUGIN_DIRECTORY);
        let mut child = call
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .or_fail("a plugin");
        let mut input = child.stdin.take().or_fail("its input");
        input.write_all(config.to_string().as_bytes()).or_fail("writing its configuration");
        drop(input);
        let output = child.wait_with_output().or_fail("waiting for a plugin");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
        PluginResult { succeeded: output.status.success(), output: json }
    }
}
