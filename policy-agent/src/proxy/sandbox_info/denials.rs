//! `/denials`: what was denied to a sandbox since the agent has served it.

use serde_json::{Value, json};

use super::visible_verdict::visible_verdict;
use crate::{
    events::{FlowDecision, FlowQuery, FlowSelection, RecordedFlow},
    policy::SandboxId,
    proxy::{decision::ConnectionDecision, sandbox_proxy::SandboxProxy},
};

/// Maximum number of entries.
const MAX_ENTRIES: usize = 100;

/// The entries, the ones seen last first.
pub(super) fn recent_denials(sandbox_proxy: &SandboxProxy) -> Value {
    let query = FlowQuery {
        sandbox: Some(sandbox_proxy.sandbox.clone()),
        selection: FlowSelection::Denials,
        // An earlier sandbox may have had the same ID.
        since: Some(sandbox_proxy.serving_since()),
        last: Some(MAX_ENTRIES),
        ..FlowQuery::everything()
    };
    let flows = sandbox_proxy.context.event_buffer.record().entries(&query);
    // Who connects to the sandbox is not part of its own traffic.
    let own = flows.iter().filter(|flow| !flow.inbound);
    json!({ "entries": own.filter_map(|flow| entry(&sandbox_proxy.sandbox, flow)).collect::<Vec<_>>() })
}

fn entry(sandbox: &SandboxId, flow: &RecordedFlow) -> Option<Value> {
    let rule = flow.rule.clone();
    let would_deny = flow.decision == FlowDecision::WouldDeny;
    let decision = ConnectionDecision { rule, would_deny, reason: flow.parsed_reason()? };
    let mut entry = visible_verdict(sandbox, &decision, flow.address, flow.name.as_deref());
    entry["lastSeen"] = flow.last_seen.to_string().into();
    entry["count"] = flow.count().into();
    if let Some(name) = &flow.name {
        entry["name"] = name.as_str().into();
    }
    if let Some(address) = flow.address {
        entry["address"] = address.to_string().into();
    }
    if let Some(port) = flow.port {
        entry["port"] = port.into();
    }
    if let Some(protocol) = &flow.protocol {
        entry["protocol"] = protocol.as_ref().into();
    }
    Some(entry)
}
