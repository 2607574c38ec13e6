//! `GET /sandboxes` and `GET /v2/sandboxes`: list sandboxes, filtered and in pages.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{RawQuery, State},
    http::HeaderMap,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    CLIENT_ID, ENVD_VERSION,
    cursor::{self, SandboxPage},
    list_query::{ListQuery, ListQueryParameters},
    paging::page_headers,
    template_id,
};
use crate::{
    agent::Sandbox,
    api::{ApiState, Problem},
    policy::SandboxId,
};

/// A sandbox in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct E2bSandboxSummary {
    /// The template of the sandbox. Empty if the sandbox was applied.
    #[serde(rename = "templateID")]
    template_id: String,
    /// The ID of the sandbox.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    sandbox_id: SandboxId,
    /// The same for all sandboxes.
    #[serde(rename = "clientID")]
    client_id: &'static str,
    /// The start time, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// The end time, RFC 3339. In the year 9999 if the sandbox has no end.
    #[schema(value_type = String, format = DateTime)]
    end_at: Timestamp,
    /// Always `running`: a sandbox that has ended is unknown.
    state: &'static str,
    /// The version of envd, E2B's daemon, that clients should expect.
    envd_version: &'static str,
    /// Always 0: unknown to the agent.
    cpu_count: u32,
    /// Always 0: unknown to the agent.
    #[serde(rename = "memoryMB")]
    memory_mb: u32,
    /// Always 0: unknown to the agent.
    #[serde(rename = "diskSizeMB")]
    disk_size_mb: u32,
    /// The metadata of the creation request.
    metadata: BTreeMap<String, String>,
}

impl E2bSandboxSummary {
    /// The summary of a sandbox.
    pub(super) fn from_sandbox(sandbox: &Sandbox) -> Self {
        let lifetime = &sandbox.lifetime;
        Self {
            template_id: template_id(sandbox),
            sandbox_id: sandbox.id().clone(),
            client_id: CLIENT_ID,
            started_at: lifetime.started_at(),
            end_at: lifetime.ends_at().unwrap_or(Timestamp::MAX),
            state: "running",
            envd_version: ENVD_VERSION,
            cpu_count: 0,
            memory_mb: 0,
            disk_size_mb: 0,
            metadata: lifetime
                .metadata()
                .map(|metadata| metadata.metadata.clone())
                .unwrap_or_default(),
        }
    }
}

/// List sandboxes
#[utoipa::path(
    get, path = "/sandboxes", tag = "E2B", operation_id = "list_sandboxes", params(ListQueryParameters),
    responses(
        (status = 200, description = "Those of this page", body = Vec<E2bSandboxSummary>, headers(
            ("X-Next-Token" = Option<String>, description = "nextToken of the next page, if any"),
        )),
        (status = 400, response = Problem),
    )
)]
pub(super) async fn list(
    State(api): State<ApiState>,
    RawQuery(query): RawQuery,
) -> Result<(HeaderMap, Json<Vec<E2bSandboxSummary>>), Problem> {
    let query = ListQuery::parse(query.as_deref().unwrap_or_default())?;
    let matching = api.agent.registry().all().into_iter().filter(|sandbox| query.matches(sandbox));
    let SandboxPage { sandboxes, next } = cursor::paginate(matching.collect(), &query);
    Ok((
        page_headers(next.map(|cursor| cursor.to_string()))?,
        Json(sandboxes.iter().map(|sandbox| E2bSandboxSummary::from_sandbox(sandbox)).collect()),
    ))
}
