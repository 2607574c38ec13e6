//! Which policy a container gets from the CNI plugin and the OCI hook.

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::policy::ValidationError;

/// The annotation with the name of a policy.
const NAME_ANNOTATION: &str = "policy-agent/policy";
/// The annotation with a network configuration.
const NETWORK_ANNOTATION: &str = "policy-agent/network";
/// Where named policies are.
pub(crate) const POLICY_DIRECTORY: &str = "/etc/policy-agent/policies";

/// What the operator decides about the policies of containers.
#[derive(Args)]
pub(super) struct ContainerPolicies {
    /// The policy of containers whose annotations name none: the name of a file without .json
    #[arg(long, value_name = "NAME")]
    pub(super) policy: Option<String>,
    /// Where policy files are
    #[arg(long, value_name = "DIRECTORY", default_value = POLICY_DIRECTORY)]
    pub(super) policy_directory: PathBuf,
    /// Allow annotations to hold a network configuration, not only a name
    #[arg(long)]
    pub(super) inline_annotations: bool,
}

impl ContainerPolicies {
    /// Chooses the policy: that of the annotations, the operator's named one, or `network`. Returns
    /// the keys of a sandbox that make it.
    ///
    /// # Errors
    /// There is none, or it cannot be read. A container without a policy gets no network.
    pub(super) fn choose(
        &self,
        annotations: &BTreeMap<String, String>,
        network: Option<&Value>,
    ) -> Result<Value, ValidationError> {
        if let Some(text) = annotations.get(NETWORK_ANNOTATION) {
            return self.inline_policy(text);
        }
        if let Some(name) = annotations.get(NAME_ANNOTATION).or(self.policy.as_ref()) {
            return self.read_policy(name);
        }
        let network = network.map(|network| json!({"network": network}));
        network.ok_or_else(|| {
            let problem = format!(
                "is missing: name a file in {} by the annotation {NAME_ANNOTATION}, or set a default",
                self.policy_directory.display()
            );
            ValidationError::about_field("policy", problem)
        })
    }

    fn inline_policy(&self, text: &str) -> Result<Value, ValidationError> {
        if !self.inline_annotations {
            let problem = format!("inlineAnnotations is off; name a policy by {NAME_ANNOTATION}");
            return Err(ValidationError::about_field(NETWORK_ANNOTATION, problem));
        }
        let network: Value = serde_json::from_str(text)
            .map_err(|error| ValidationError::about_field(NETWORK_ANNOTATION, error.to_string()))?;
        Ok(json!({"network": network}))
    }

    /// Reads `<policy directory>/<name>.json`.
    fn read_policy(&self, name: &str) -> Result<Value, ValidationError> {
        let about = |problem: String| ValidationError::about_entry("policy", name, problem);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(about("write letters, digits, - and _ only".to_owned()));
        }
        let path = self.policy_directory.join(format!("{name}.json"));
        let text =
            fs::read(&path).map_err(|error| about(format!("{}: {error}", path.display())))?;
        let policy: Value = serde_json::from_slice(&text)
            .map_err(|error| about(format!("{}: {error}", path.display())))?;
        if policy.is_object() {
            return Ok(policy);
        }
        Err(about(format!("{}: write an object with `network`", path.display())))
    }
}
