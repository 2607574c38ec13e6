//! `GET /agent/v1/…/denials` and `…/flows`: the record, aggregated by destination.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use policy_common::reason::Reason;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

use super::{
    ApiState, Problem, flow_stream::follow_flows, query_flag::QueryFlag, time_query::parse_since,
};
use crate::{
    agent::AgentError,
    events::{FlowDecision, FlowQuery, FlowSelection, RecordedFlow},
    policy::{AllowHint, DomainPattern, SandboxId, ValidationError, parse_reason_label},
};

/// Entries of all sandboxes that are returned unless `last` says otherwise.
const DEFAULT_LAST_OF_ALL: usize = 1000;

/// Query parameters of the record.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FlowParams {
    /// Only with this reason, by its label.
    reason: Option<String>,
    /// Only what was seen from this time on: RFC 3339, or how long ago, like `1h30m` or `2d`.
    since: Option<String>,
    /// Only this name, or names that match a wildcard like `*.example.com`.
    name: Option<String>,
    /// Only so many entries, the ones seen last. Default: all of one sandbox, 1000 of all sandboxes.
    #[param(minimum = 0)]
    last: Option<usize>,
    /// Stream entries as JSON lines: those that there are, oldest first, and from then on those that
    /// change.
    #[param(value_type = String, required = false, pattern = "^(true|false|1|0)?$")]
    follow: QueryFlag,
}

/// A part of the record.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlowList {
    /// The entries, the ones seen last first.
    entries: Vec<HintedFlow>,
    /// Packets that were denied or reported, and are not in the entries, because the sandbox caused
    /// more events than are taken.
    lost: u64,
}

/// An entry, and what would allow it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HintedFlow {
    #[serde(flatten)]
    flow: RecordedFlow,
    /// If it was denied: the entry of `allowOut` that would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_entry: Option<String>,
    /// If it was denied: the command or the setting that would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_with: Option<String>,
}

impl From<RecordedFlow> for HintedFlow {
    fn from(flow: RecordedFlow) -> Self {
        let denied = flow.parsed_reason().filter(|_| flow.decision != FlowDecision::Allowed);
        let hint = denied
            .and_then(|reason| AllowHint::for_denial(reason, flow.address, flow.name.as_deref()));
        Self {
            allow_entry: hint.as_ref().and_then(AllowHint::entry).map(str::to_owned),
            allow_with: hint.map(|hint| hint.advice(&flow.sandbox_id)),
            flow,
        }
    }
}

/// Show what a sandbox was denied, by destination
///
/// The record is bounded, and kept over restarts. `allowWith` says what would allow it.
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/denials", tag = "Agent", operation_id = "denials",
    params(FlowParams),
    responses(
        (status = 200, description = "The denials; with `follow`, one entry a line", body = FlowList),
        (status = 400, response = Problem), (status = 404, response = Problem),
    )
)]
pub(super) async fn denials(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    params: Result<Query<FlowParams>, QueryRejection>,
) -> Result<Response, Problem> {
    respond(api, Some(id), FlowSelection::Denials, params).await
}

/// Show what a sandbox reached and what it was denied, by destination
///
/// Connections through the egress proxy are always recorded. Flows that the kernel lets pass are
/// recorded while somebody follows them.
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/flows", tag = "Agent", operation_id = "flows",
    params(FlowParams),
    responses(
        (status = 200, description = "The flows; with `follow`, one entry a line", body = FlowList),
        (status = 400, response = Problem), (status = 404, response = Problem),
    )
)]
pub(super) async fn flows(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    params: Result<Query<FlowParams>, QueryRejection>,
) -> Result<Response, Problem> {
    respond(api, Some(id), FlowSelection::All, params).await
}

/// Show what all sandboxes were denied, by sandbox and destination
#[utoipa::path(
    get, path = "/agent/v1/denials", tag = "Agent", operation_id = "all_denials",
    params(FlowParams),
    responses(
        (status = 200, description = "The denials; with `follow`, one entry a line", body = FlowList),
        (status = 400, response = Problem),
    )
)]
pub(super) async fn all_denials(
    State(api): State<ApiState>,
    params: Result<Query<FlowParams>, QueryRejection>,
) -> Result<Response, Problem> {
    respond(api, None, FlowSelection::Denials, params).await
}

/// Show what all sandboxes reached and were denied, by sandbox and destination
#[utoipa::path(
    get, path = "/agent/v1/flows", tag = "Agent", operation_id = "all_flows",
    params(FlowParams),
    responses(
        (status = 200, description = "The flows; with `follow`, one entry a line", body = FlowList),
        (status = 400, response = Problem),
    )
)]
pub(super) async fn all_flows(
    State(api): State<ApiState>,
    params: Result<Query<FlowParams>, QueryRejection>,
) -> Result<Response, Problem> {
    respond(api, None, FlowSelection::All, params).await
}

async fn respond(
    api: ApiState,
    id: Option<String>,
    selection: FlowSelection,
    params: Result<Query<FlowParams>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(params) = params.map_err(|error| Problem::bad_request(error.body_text()))?;
    let sandbox = id.as_deref().map(|id| known_sandbox(&api, id)).transpose()?;
    let follow = params.follow;
    let query = params.into_query(sandbox, selection)?;
    if follow == QueryFlag::On {
        return follow_flows(api, query).await;
    }
    let list = spawn_blocking(move || FlowList::read(&api, &query)).await;
    let list = list.map_err(Problem::internal)?.map_err(Problem::internal)?;
    Ok(Json(list).into_response())
}

/// The ID of a sandbox that exists, or that the record still has.
fn known_sandbox(api: &ApiState, id: &str) -> Result<SandboxId, AgentError> {
    let unknown = || AgentError::UnknownSandbox(id.to_owned());
    let parsed: SandboxId = id.parse().map_err(|_| unknown())?;
    let is_known =
        api.agent.registry().get(&parsed).is_some() || api.events.record().has_sandbox(id);
    if is_known { Ok(parsed) } else { Err(unknown()) }
}

impl FlowParams {
    fn into_query(
        self,
        sandbox: Option<SandboxId>,
        selection: FlowSelection,
    ) -> Result<FlowQuery, ValidationError> {
        let reason = self.reason.as_deref().map(parse_reason_label).transpose()?;
        let parse_name = |name: &str| {
            DomainPattern::parse(name)
                .map_err(|problem| ValidationError::about_entry("name", name, problem))
        };
        Ok(FlowQuery {
            last: self.last.or_else(|| sandbox.is_none().then_some(DEFAULT_LAST_OF_ALL)),
            sandbox,
            selection,
            reason: reason.map(Reason::label),
            since: self.since.as_deref().map(parse_since).transpose()?,
            name: self.name.as_deref().map(parse_name).transpose()?,
            changed_after: 0,
        })
    }
}

impl FlowList {
    /// Reads the record, and what the kernel lost. Blocks.
    fn read(api: &ApiState, query: &FlowQuery) -> anyhow::Result<Self> {
        let entries = api.events.record().entries(query).into_iter().map(HintedFlow::from);
        let registry = api.agent.registry();
        let sandboxes = match &query.sandbox {
            Some(id) => registry.get(id).into_iter().collect(),
            None => registry.all(),
        };
        let mut lost = 0;
        for sandbox in sandboxes {
            let limits = api.agent.dataplane().rate_limits(sandbox.slot)?;
            lost += limits.events_suppressed + limits.events_lost;
        }
        Ok(Self { entries: entries.collect(), lost })
    }
}

/// One entry as a line.
pub(super) fn json_line(flow: RecordedFlow) -> Vec<u8> {
    // Serialization cannot fail: every field has a JSON form.
    let mut line = serde_json::to_vec(&HintedFlow::from(flow)).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Whether following a selection needs the kernel's reports of flows that pass.
pub(super) fn needs_flow_reports(query: &FlowQuery) -> bool {
    query.selection == FlowSelection::All
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_parameters_are_named() {
        let field = |params: FlowParams| {
            params.into_query(None, FlowSelection::All).expect_err("refused").field
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(field(FlowParams { reason: text("denied"), ..Default::default() }), "reason");
        assert_eq!(field(FlowParams { since: text("monday"), ..Default::default() }), "since");
        assert_eq!(field(FlowParams { name: text("a..b"), ..Default::default() }), "name");
    }
}
