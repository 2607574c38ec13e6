//! `GET /agent/v1/sandboxes/{id}/suggestion`: a policy that allows what was seen.

use axum::{
    Json,
    extract::{Path, State},
};
use policy_common::reason::Reason;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ApiState, Problem};
use crate::{
    events::{FlowDecision, FlowQuery, RecordedFlow},
    policy::{DomainName, PolicySuggestion, SandboxSpec, SeenDestination},
};

/// A suggested policy.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SuggestedPolicy {
    /// The sandbox with the suggested lists, without secrets.
    sandbox: SandboxSpec,
    /// What a person should look at.
    notes: Vec<String>,
}

/// Suggest a policy that allows what a sandbox was seen to ask for
///
/// Changes nothing. Takes the record: what passed, and what the sandbox's own lists denied.
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/suggestion", tag = "Agent", operation_id = "suggestion",
    responses(
        (status = 200, description = "The suggestion", body = SuggestedPolicy),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn suggestion(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<SuggestedPolicy>, Problem> {
    let sandbox = api.agent.registry().require(&id)?;
    let query = FlowQuery { sandbox: Some(sandbox.id().clone()), ..FlowQuery::everything() };
    let entries = api.events.record().entries(&query);
    let floor = &sandbox.active_policy.floor;
    let seen = seen_destinations(&entries).into_iter();
    let PolicySuggestion { allow_out, mut notes } = PolicySuggestion::for_destinations(seen, floor);
    notes.extend(entries.iter().filter_map(entry_note));
    if entries.is_empty() {
        notes.push("nothing was seen yet, so nothing is allowed".to_owned());
    }
    let mut spec = sandbox.spec();
    spec.network.allow_out = Some(allow_out);
    spec.network.deny_out = Some(vec![PolicySuggestion::deny_out().to_owned()]);
    (spec.allow_internet_access, spec.network.allow_internet_access) = (None, None);
    spec.temporary.clear();
    spec.enforce();
    Ok(Json(SuggestedPolicy { sandbox: spec, notes }))
}

/// The destinations that the policy has to allow. With names, it allows DNS servers anyway.
fn seen_destinations(entries: &[RecordedFlow]) -> Vec<SeenDestination> {
    let seen = || entries.iter().filter_map(|flow| Some((flow, seen_destination(flow)?)));
    let has_names = seen().any(|(_, seen)| matches!(seen, SeenDestination::Name(_)));
    let is_needed =
        |flow: &RecordedFlow| !has_names || flow.parsed_reason() != Some(Reason::DnsServer);
    seen().filter(|(flow, _)| is_needed(flow)).map(|(_, seen)| seen).collect()
}

/// The destination of an entry that the policy has to allow. `None` if no policy is needed or helps.
fn seen_destination(flow: &RecordedFlow) -> Option<SeenDestination> {
    let reason = flow.parsed_reason()?;
    let is_policys = match flow.decision {
        FlowDecision::Allowed => reason != Reason::PlatformAllow,
        FlowDecision::Denied => {
            [Reason::NameNotAllowed, Reason::DenyOut, Reason::PlatformDeny].contains(&reason)
        }
        FlowDecision::WouldDeny => true,
    };
    if !is_policys || flow.inbound || flow.merged > 0 {
        return None;
    }
    match &flow.name {
        // A name that leads to what the floor denies needs no entry.
        Some(_) if reason == Reason::PlatformDeny => None,
        Some(name) => DomainName::parse(name).ok().map(SeenDestination::Name),
        None => flow.address.map(SeenDestination::Address),
    }
}

/// A note about an entry that a person should look at.
fn entry_note(flow: &RecordedFlow) -> Option<String> {
    if flow.merged > 0 {
        let merged = flow.merged;
        return Some(format!("{merged} rarer destinations were not recorded one by one"));
    }
    seen_destination(flow).filter(|_| flow.decision != FlowDecision::Allowed)?;
    let what = flow.name.clone().or_else(|| flow.address.map(|address| address.to_string()))?;
    let how = match flow.decision {
        FlowDecision::WouldDeny => "was observed, and the policy would deny it",
        _ => "was denied so far",
    };
    (flow.parsed_reason() != Some(Reason::PlatformDeny))
        .then(|| format!("{what} {how}: {}", flow.reason))
}
