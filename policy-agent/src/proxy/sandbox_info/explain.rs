//! `/explain?url=…`: the verdict on a connection that a sandbox would make.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::visible_verdict::visible_verdict;
use crate::{
    agent::ActivePolicy,
    policy::{
        DomainName, DomainOrIp, FlowDestination, HostAndPort, RequestedName,
        evaluate::{HTTPS_PORT, IPPROTO_TCP, is_judged_by_name},
        evaluate_connection,
    },
    proxy::{
        decision::{ConnectionDecision, ConnectionEnd},
        dial::{DialTarget, check_target},
        sandbox_proxy::SandboxProxy,
    },
};

/// The verdict on the URL, name or address in a query.
///
/// # Errors
/// The query is invalid. The message says what to write.
pub(super) async fn explain(sandbox_proxy: &SandboxProxy, query: &str) -> Result<Value, String> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    let url = parameters.find(|(name, _)| name == "url");
    let (_, url) = url.ok_or("write ?url= and a URL, a name or an address")?;
    let endpoint = HostAndPort::parse_host_or_url(&url);
    let HostAndPort { host, port } =
        endpoint.map_err(|problem| format!("write a URL, a name or an address: {problem}"))?;
    let port = port.unwrap_or(HTTPS_PORT);
    let active_policy = sandbox_proxy.active_policy();
    let (decision, address, name) = match &host {
        DomainOrIp::Address(address) => {
            (explain_address(&active_policy, *address, port), Some(*address), None)
        }
        DomainOrIp::Domain(name) => {
            if !is_judged_by_name(&active_policy.policy, IPPROTO_TCP, Some(port)) {
                return Err(format!(
                    "port {port} is judged by address and not by name: ask with the address"
                ));
            }
            let decision = explain_name(sandbox_proxy, &active_policy, name, port).await;
            (decision, None, Some(name.as_str()))
        }
    };
    let mut verdict = visible_verdict(&sandbox_proxy.sandbox, &decision, address, name);
    verdict["host"] = host.to_string().into();
    verdict["port"] = port.into();
    Ok(verdict)
}

fn explain_address(active_policy: &ActivePolicy, address: IpAddr, port: u16) -> ConnectionDecision {
    let destination =
        FlowDestination { address, protocol: IPPROTO_TCP, port: Some(port), host: None };
    evaluate_connection(&active_policy.policy, &active_policy.floor, &destination).into()
}

/// A name that is allowed also has to lead to an address that may be dialed.
async fn explain_name(
    sandbox_proxy: &SandboxProxy,
    active_policy: &ActivePolicy,
    name: &DomainName,
    port: u16,
) -> ConnectionDecision {
    let requested = RequestedName::parse(name.as_str());
    let anywhere = Ipv4Addr::UNSPECIFIED.into();
    let explanation = active_policy.evaluate_by_name(Some(&requested), anywhere);
    if !explanation.allowed || explanation.tunnel {
        return explanation.into();
    }
    let target = DialTarget { host: DomainOrIp::Domain(name.clone()), port };
    match check_target(sandbox_proxy, active_policy, &target).await {
        Err(ConnectionEnd::Refused(decision)) => decision,
        _ => explanation.into(),
    }
}
