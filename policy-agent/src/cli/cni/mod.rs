//! The CNI plugin: what the binary does when a container runtime calls it, from `/opt/cni/bin` and
//! with `CNI_COMMAND` in its environment.
//!
//! It is chained after a plugin that makes the interface, such as `ptp` or `bridge`. `ADD` applies a
//! policy to the host's end of the interface and answers when it is enforced.
//!
//! Source: the CNI specification 1.1.0.

mod attachment;
mod cni_error;
mod plugin_config;

use std::{
    env,
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use hyper::{Method, StatusCode, body::Bytes};
use serde_json::{Value, json};

use self::{
    attachment::{Attachment, attachment_id, network_prefix},
    cni_error::{CniError, CniErrorCode},
    plugin_config::PluginConfig,
};
use super::{
    client::{ApiClient, ApiClientError},
    runtime::block_on,
};

/// The variable that names what to do.
const COMMAND: &str = "CNI_COMMAND";
/// The versions of the specification that the plugin supports.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Whether a container runtime has called the binary.
pub(super) fn is_called_by_runtime() -> bool {
    env::args_os().len() == 1 && env::var_os(COMMAND).is_some()
}

/// Does what the runtime asks for. Results and errors go to stdout, as JSON.
pub(super) fn main() -> ExitCode {
    let (output, code) = match run() {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(error) => (error.to_json(), ExitCode::FAILURE),
    };
    match writeln!(io::stdout().lock(), "{output}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> Result<Option<Value>, CniError> {
    let mut input = String::new();
    io::stdin().lock().read_to_string(&mut input).map_err(CniError::from_input)?;
    let command = required_variable(COMMAND)?;
    if command == "VERSION" {
        return Ok(Some(supported_versions(&input)));
    }
    let config = PluginConfig::parse(&input)?;
    let call = PluginCall { client: ApiClient::new(&config.socket), config };
    match command.as_str() {
        "ADD" => call.add().map(Some),
        "DEL" => call.delete().map(|()| None),
        "CHECK" => call.check().map(|()| None),
        "GC" => call.collect_garbage().map(|()| None),
        "STATUS" => call.status().map(|()| None),
        other => {
            let message = format!("{COMMAND}: {other:?} is not a command of CNI");
            Err(CniError::new(CniErrorCode::InvalidEnvironment, message))
        }
    }
}

fn supported_versions(input: &str) -> Value {
    let asked = serde_json::from_str::<Value>(input).ok();
    let asked = asked.and_then(|config| Some(config.get("cniVersion")?.as_str()?.to_owned()));
    let version = asked.unwrap_or_else(|| VERSIONS[VERSIONS.len() - 1].to_owned());
    json!({"cniVersion": version, "supportedVersions": VERSIONS})
}

fn required_variable(name: &str) -> Result<String, CniError> {
    env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
        CniError::new(CniErrorCode::InvalidEnvironment, format!("{name}: is not set"))
    })
}

/// A call with its configuration.
struct PluginCall {
    config: PluginConfig,
    client: ApiClient,
}

impl PluginCall {
    /// Enforces the policy, and returns the result of the plugin before this one.
    fn add(&self) -> Result<Value, CniError> {
        let attachment = Attachment::of_call(&self.config)?;
        let annotations = &self.config.runtime_config.annotations;
        let policy = self.config.policies().choose(annotations, self.config.network.as_ref())?;
        let sandbox = attachment.sandbox(&policy);
        self.request(Method::PUT, &attachment.id, Bytes::from(sandbox.to_string()))?;
        Ok(self.config.previous_result()?.clone())
    }

    /// Deletes the sandbox. One that does not exist is no error.
    fn delete(&self) -> Result<(), CniError> {
        self.delete_sandbox(&attachment_id(&self.config, &call_container()?, &call_interface()?))
    }

    fn delete_sandbox(&self, id: &str) -> Result<(), CniError> {
        match self.request(Method::DELETE, id, Bytes::new()) {
            Err(error) if error.is_unknown_container() => Ok(()),
            result => result.map(drop),
        }
    }

    /// Checks that the policy is enforced on the interface that there is.
    fn check(&self) -> Result<(), CniError> {
        let attachment = Attachment::of_call(&self.config)?;
        let report = self.request(Method::GET, &attachment.id, Bytes::new())?;
        let report: Value = serde_json::from_slice(&report).map_err(CniError::from_input)?;
        attachment.check_report(&report)
    }

    /// Deletes the sandboxes of this network of which the runtime knows nothing.
    fn collect_garbage(&self) -> Result<(), CniError> {
        let valid: Vec<String> = self
            .config
            .valid_attachments
            .iter()
            .map(|valid| attachment_id(&self.config, &valid.container_id, &valid.interface))
            .collect();
        let list = self.send(Method::GET, "/agent/v1/sandboxes", Bytes::new())?;
        let list: Vec<Value> = serde_json::from_slice(&list).map_err(CniError::from_input)?;
        let prefix = network_prefix(&self.config);
        let ids = list.iter().filter_map(|report| report["sandboxID"].as_str());
        let stale = ids.filter(|id| id.starts_with(&prefix) && !valid.iter().any(|it| it == id));
        for id in stale {
            self.delete_sandbox(id)?;
        }
        Ok(())
    }

    /// Whether containers can be added now.
    fn status(&self) -> Result<(), CniError> {
        self.send(Method::GET, "/health", Bytes::new())
            .map(drop)
            .map_err(|error| CniError::new(CniErrorCode::NotAvailable, error.to_string()))
    }

    fn request(&self, method: Method, id: &str, body: Bytes) -> Result<Bytes, CniError> {
        self.send(method, &format!("/agent/v1/sandboxes/{id}"), body)
    }

    fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, CniError> {
        let sent = block_on(self.client.request(method, path, body));
        let sent = sent.map_err(|error| CniError::new(CniErrorCode::Io, format!("{error:#}")))?;
        sent.map_err(|error| {
            let code = match &error {
                ApiClientError::Unreachable { .. } => CniErrorCode::TryAgainLater,
                ApiClientError::Refused { status, .. } if *status == StatusCode::NOT_FOUND => {
                    CniErrorCode::UnknownContainer
                }
                error if error.is_bad_input() => CniErrorCode::InvalidConfig,
                _ => CniErrorCode::Io,
            };
            CniError::new(code, error.to_string())
        })
    }
}

/// The container of the call.
fn call_container() -> Result<String, CniError> {
    required_variable("CNI_CONTAINERID")
}

/// The interface of the call, inside the container.
fn call_interface() -> Result<String, CniError> {
    required_variable("CNI_IFNAME")
}
