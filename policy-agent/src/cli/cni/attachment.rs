//! A container's interface as a sandbox of the agent.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    call_container, call_interface,
    cni_error::{CniError, CniErrorCode},
    plugin_config::PluginConfig,
};
use crate::cli::container_id::{container_sandbox_id, hex_digest};

/// An interface that another plugin has made.
pub(super) struct Attachment {
    /// The ID of the sandbox.
    pub(super) id: String,
    host_interface: String,
    addresses: Vec<IpAddr>,
    mac: Option<String>,
}

/// The part of a result that matters here.
#[derive(Deserialize)]
struct PreviousResult {
    #[serde(default)]
    interfaces: Vec<ResultInterface>,
    #[serde(default)]
    ips: Vec<ResultAddress>,
}

#[derive(Deserialize)]
struct ResultInterface {
    name: String,
    mac: Option<String>,
    sandbox: Option<String>,
}

#[derive(Deserialize)]
struct ResultAddress {
    address: String,
    interface: Option<usize>,
}

impl Attachment {
    /// Reads the result of the plugin before this one.
    pub(super) fn of_call(config: &PluginConfig) -> Result<Self, CniError> {
        let inside = call_interface()?;
        let id = attachment_id(config, &call_container()?, &inside);
        let result = PreviousResult::deserialize(config.previous_result()?)
            .map_err(|error| CniError::about("prevResult", error))?;
        let is_inside = |one: &ResultInterface| {
            one.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_empty()) && one.name == inside
        };
        let place = result.interfaces.iter().position(is_inside);
        let own = |address: &&ResultAddress| address.interface.is_none_or(|it| Some(it) == place);
        let addresses: Vec<IpAddr> =
            result.ips.iter().filter(own).map(parse_address).collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            return Err(CniError::about("prevResult.ips", "has no address of the container"));
        }
        let mac = place.and_then(|place| result.interfaces[place].mac.clone());
        let host_interface = host_interface(&result.interfaces)?;
        Ok(Self { id, host_interface, addresses, mac: mac.filter(|mac| !mac.is_empty()) })
    }

    /// The sandbox for the agent, with the keys of a policy.
    pub(super) fn sandbox(&self, policy: &Value) -> Value {
        let mut sandbox = policy.clone();
        sandbox["interface"] = self.host_interface.as_str().into();
        sandbox["addresses"] = json!(self.addresses);
        if let Some(mac) = &self.mac {
            sandbox["mac"] = mac.as_str().into();
        }
        sandbox
    }

    /// Compares the agent's report of the sandbox with the interface.
    pub(super) fn check_report(&self, report: &Value) -> Result<(), CniError> {
        let differs = |what: &str| {
            let message = format!("sandbox {}: {what}", self.id);
            Err(CniError::new(CniErrorCode::NotEnforced, message))
        };
        if report["interface"] != self.host_interface.as_str() {
            return differs(&format!("its interface is not {}", self.host_interface));
        }
        if report["addresses"] != json!(self.addresses) {
            return differs("it has other addresses");
        }
        match report["status"].as_str() {
            Some("enforcing") => Ok(()),
            status => differs(&format!("its policy is not enforced: {}", status.unwrap_or("?"))),
        }
    }
}

/// The ID of the sandbox of a container's interface: the network, the beginning of the container's
/// ID, by which people know it, and a digest of everything.
pub(super) fn attachment_id(config: &PluginConfig, container: &str, interface: &str) -> String {
    let unique = format!("{}\0{container}\0{interface}", config.name);
    container_sandbox_id(&network_prefix(config), container, &unique)
}

/// What the IDs of all sandboxes of a network begin with.
pub(super) fn network_prefix(config: &PluginConfig) -> String {
    format!("cni{}", hex_digest(&config.name))
}

fn parse_address(address: &ResultAddress) -> Result<IpAddr, CniError> {
    let text = address.address.split('/').next().unwrap_or_default();
    text.parse().map_err(|_| {
        CniError::about("prevResult.ips", format!("{:?} is no address", address.address))
    })
}

/// The host's end: the last interface that is not in the container. `bridge` lists its bridge first.
fn host_interface(interfaces: &[ResultInterface]) -> Result<String, CniError> {
    let is_outside = |one: &&ResultInterface| one.sandbox.as_ref().is_none_or(String::is_empty);
    interfaces.iter().rfind(is_outside).map(|one| one.name.clone()).ok_or_else(|| {
        let problem = "has no interface of the host; the plugins ptp and bridge make one, macvlan and \
                       ipvlan do not";
        CniError::about("prevResult.interfaces", problem)
    })
}
