//! Which policy a container gets.

use std::{env, fs};

use serde_json::{Value, json};

use super::{cni_error::CniError, plugin_config::PluginConfig};

/// The annotation with the name of a policy.
const NAME_ANNOTATION: &str = "policy-agent/policy";
/// The annotation with a network configuration.
const NETWORK_ANNOTATION: &str = "policy-agent/network";
/// The argument with the name of a policy, in `CNI_ARGS`.
const NAME_ARGUMENT: &str = "POLICY";

/// Chooses the policy: that of the annotations, of `CNI_ARGS`, or of the configuration. Returns the
/// keys of a sandbox that make it.
///
/// # Errors
/// There is none, or it cannot be read. A container without a policy gets no interface.
pub(super) fn choose_policy(config: &PluginConfig) -> Result<Value, CniError> {
    let annotations = &config.runtime_config.annotations;
    if let Some(text) = annotations.get(NETWORK_ANNOTATION) {
        return inline_policy(config, text);
    }
    let name = annotations.get(NAME_ANNOTATION).cloned();
    if let Some(name) = name.or_else(named_by_argument).or_else(|| config.policy.clone()) {
        return read_policy(config, &name);
    }
    let network = config.network.as_ref().map(|network| json!({"network": network}));
    network.ok_or_else(|| {
        let problem = "is missing: write the name of a file in policyDirectory, or `network`";
        CniError::about("policy", problem)
    })
}

fn inline_policy(config: &PluginConfig, text: &str) -> Result<Value, CniError> {
    if !config.inline_annotations {
        let problem = format!("inlineAnnotations is off; name a policy by {NAME_ANNOTATION}");
        return Err(CniError::about(NETWORK_ANNOTATION, problem));
    }
    let network: Value =
        serde_json::from_str(text).map_err(|error| CniError::about(NETWORK_ANNOTATION, error))?;
    Ok(json!({"network": network}))
}

fn named_by_argument() -> Option<String> {
    let arguments = env::var("CNI_ARGS").ok()?;
    let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == NAME_ARGUMENT).map(|(_, value)| value.to_owned())
}

/// Reads `<policyDirectory>/<name>.json`.
fn read_policy(config: &PluginConfig, name: &str) -> Result<Value, CniError> {
    let about = |problem: String| CniError::about(&format!("policy {name:?}"), problem);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(about("write letters, digits, - and _ only".to_owned()));
    }
    let path = config.policy_directory.join(format!("{name}.json"));
    let text = fs::read(&path).map_err(|error| about(format!("{}: {error}", path.display())))?;
    let policy: Value = serde_json::from_slice(&text)
        .map_err(|error| about(format!("{}: {error}", path.display())))?;
    if policy.is_object() {
        return Ok(policy);
    }
    Err(about(format!("{}: write an object with `network`", path.display())))
}
