//! The configuration of the plugin in a list of plugins, with what the runtime adds.

use std::{collections::BTreeMap, env, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{
    VERSIONS,
    cni_error::{CniError, CniErrorCode},
};
use crate::cli::container_policy::{ContainerPolicies, POLICY_DIRECTORY};

/// The argument with the name of a policy, in `CNI_ARGS`.
const NAME_ARGUMENT: &str = "POLICY";

/// The configuration. Keys that are not the plugin's own are those of the specification, of which it
/// takes some.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PluginConfig {
    cni_version: String,
    /// The name of the network.
    pub(super) name: String,
    /// The agent's socket.
    #[serde(default = "default_socket")]
    pub(super) socket: PathBuf,
    /// Where named policies are.
    #[serde(default = "default_policy_directory")]
    policy_directory: PathBuf,
    /// The name of the policy of containers that name none.
    policy: Option<String>,
    /// The network configuration of containers that name no policy, in place of `policy`.
    pub(super) network: Option<Value>,
    /// Whether an annotation may hold a network configuration, not only a name.
    #[serde(default)]
    inline_annotations: bool,
    #[serde(default)]
    pub(super) runtime_config: RuntimeConfig,
    #[serde(rename = "cni.dev/valid-attachments", default)]
    pub(super) valid_attachments: Vec<ValidAttachment>,
    prev_result: Option<Value>,
}

/// What the runtime says by capabilities.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RuntimeConfig {
    /// The annotations of the pod, from containerd and CRI-O.
    #[serde(rename = "io.kubernetes.cri.pod-annotations", default)]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A container's interface that the runtime knows.
#[derive(Debug, Deserialize)]
pub(super) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
    #[serde(rename = "ifname")]
    pub(super) interface: String,
}

impl PluginConfig {
    pub(super) fn parse(text: &str) -> Result<Self, CniError> {
        let config: Self = serde_json::from_str(text).map_err(CniError::from_input)?;
        if !VERSIONS.contains(&config.cni_version.as_str()) {
            let message = format!(
                "cniVersion: {:?} is not supported; write one of {}",
                config.cni_version,
                VERSIONS.join(", ")
            );
            return Err(CniError::new(CniErrorCode::IncompatibleVersion, message));
        }
        Ok(config)
    }

    /// What the operator and the runtime's arguments decide about policies.
    pub(super) fn policies(&self) -> ContainerPolicies {
        ContainerPolicies {
            policy: named_by_argument().or_else(|| self.policy.clone()),
            policy_directory: self.policy_directory.clone(),
            inline_annotations: self.inline_annotations,
        }
    }

    /// The result of the plugin that made the interface.
    pub(super) fn previous_result(&self) -> Result<&Value, CniError> {
        self.prev_result.as_ref().ok_or_else(|| {
            let problem = "is missing: write this plugin after one that makes the interface, such as \
                           ptp or bridge, in the list of plugins";
            CniError::about("prevResult", problem)
        })
    }
}

fn named_by_argument() -> Option<String> {
    let arguments = env::var("CNI_ARGS").ok()?;
    let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == NAME_ARGUMENT).map(|(_, value)| value.to_owned())
}

fn default_socket() -> PathBuf {
    "/run/policy-agent/agent.sock".into()
}

fn default_policy_directory() -> PathBuf {
    POLICY_DIRECTORY.into()
}
