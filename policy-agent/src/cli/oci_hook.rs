//! The `oci-hook` command, which container runtimes call.
//!
//! Source: the OCI runtime specification, "POSIX-platform Hooks" and "State".

use std::{collections::BTreeMap, fs::File, io, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use hyper::{Method, StatusCode, body::Bytes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    cli_failure::CliFailure,
    client::{ApiClient, ApiClientError},
    container_id::container_sandbox_id,
    container_policy::ContainerPolicies,
    runtime::block_on,
};
use crate::dataplane::{NamespaceInterface, interfaces_towards};

/// Apply a policy to a container, as a hook of its runtime
///
/// Reads the state of a container on standard input, as runc and crun give it to hooks. As the hook
/// `createRuntime` it returns when the policy is enforced on the host's end of the container's
/// interface; if it fails, the container does not start. As `poststop` it deletes the sandbox.
///
/// The container's annotation `policy-agent/policy` names the policy, a file in the policy directory.
#[derive(Args)]
#[command(after_help = "For Podman, /etc/containers/oci/hooks.d/policy-agent.json:
  {\"version\": \"1.0.0\", \"stages\": [\"createRuntime\", \"poststop\"],
   \"hook\": {\"path\": \"/usr/bin/policy-agent\", \"args\": [\"policy-agent\", \"oci-hook\"]},
   \"when\": {\"annotations\": {\"^policy-agent/\": \".*\"}}}
  podman run --annotation policy-agent/policy=restricted …")]
pub(super) struct OciHookCommand {
    #[command(flatten)]
    policies: ContainerPolicies,
}

/// The state of a container.
#[derive(Deserialize)]
struct HookState {
    id: String,
    status: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl OciHookCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let state = serde_json::from_reader(io::stdin().lock());
        let state: HookState = state
            .context("standard input holds no state of a container")
            .map_err(CliFailure::BadInput)?;
        let id = container_sandbox_id("oci", &state.id, &state.id);
        let path = format!("/agent/v1/sandboxes/{id}");
        let client = ApiClient::new(socket);
        if state.status == "stopped" {
            return match block_on(client.request(Method::DELETE, &path, Bytes::new()))? {
                Err(ApiClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
                deleted => Ok(deleted.map(drop)?),
            };
        }
        let sandbox = self.sandbox(&state)?.to_string();
        block_on(client.request(Method::PUT, &path, sandbox.into()))??;
        Ok(())
    }

    /// The sandbox of a container whose process has not started.
    fn sandbox(&self, state: &HookState) -> Result<Value> {
        let annotations = state.annotations.clone().unwrap_or_default();
        let mut sandbox = self.policies.choose(&annotations, None)?;
        let namespace = format!("/proc/{}/ns/net", state.pid);
        let namespace = Path::new(&namespace);
        ensure!(state.pid != 0, "pid: the state has none; name the hook under createRuntime");
        let interfaces = interfaces_towards(
            File::open(namespace).context("the namespace of pid cannot be opened")?,
        )?;
        let [interface] = interfaces.as_slice() else {
            ensure!(
                interfaces.is_empty(),
                "several interfaces lead to the container: {}",
                interfaces.join(", ")
            );
            bail!(
                "no interface of this host leads to the container: its runtime makes the network \
                 later (use the CNI plugin), or it shares the host's, or has none"
            );
        };
        // Nothing of the container runs yet, so these are what the network was made with.
        let inside = NamespaceInterface::only_one_in(namespace)?;
        sandbox["interface"] = interface.as_str().into();
        sandbox["addresses"] = json!(inside.addresses);
        sandbox["mac"] = json!(inside.mac);
        Ok(sandbox)
    }
}
