//! `GET /sandboxes` and `GET /v2/sandboxes`: all sandboxes, filtered and page by page.

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
    page::{self, Page},
    query::{Parameters, Query},
    template,
};
use crate::{
    agent::Sandbox,
    api::{Api, Problem},
    policy::SandboxId,
};

/// A sandbox in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// What it was created from; empty if it was applied.
    #[serde(rename = "templateID")]
    template_id: String,
    /// Its name.
    #[serde(rename = "sandboxID")]
    #[schema(value_type = String)]
    sandbox_id: SandboxId,
    /// The same for all sandboxes.
    #[serde(rename = "clientID")]
    client_id: &'static str,
    /// When it began, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// When it ends, RFC 3339; in the year 9999 if it has no end.
    #[schema(value_type = String, format = DateTime)]
    end_at: Timestamp,
    /// Always `running`: a sandbox that has ended is not known any more.
    state: &'static str,
    /// The version of E2B's daemon that clients shall expect.
    envd_version: &'static str,
    /// 0: not the agent's to know.
    cpu_count: u32,
    /// 0: not the agent's to know.
    #[serde(rename = "memoryMB")]
    memory_mb: u32,
    /// 0: not the agent's to know.
    #[serde(rename = "diskSizeMB")]
    disk_size_mb: u32,
    /// As it was given.
    metadata: BTreeMap<String, String>,
}

impl Summary {
    /// What every list shows of a sandbox.
    pub fn of(sandbox: &Sandbox) -> Self {
        let life = &sandbox.life;
        Self {
            template_id: template(sandbox),
            sandbox_id: sandbox.id().clone(),
            client_id: CLIENT_ID,
            started_at: life.started(),
            end_at: life.ends().unwrap_or(Timestamp::MAX),
            state: "running",
            envd_version: ENVD_VERSION,
            cpu_count: 0,
            memory_mb: 0,
            disk_size_mb: 0,
            metadata: life.origin().map(|origin| origin.metadata.clone()).unwrap_or_default(),
        }
    }
}

/// List sandboxes
#[utoipa::path(
    get, path = "/sandboxes", tag = "E2B", operation_id = "list_sandboxes", params(Parameters),
    responses(
        (status = 200, description = "Those of this page", body = Vec<Summary>, headers(
            ("X-Next-Token" = Option<String>, description = "nextToken of the next page, if any"),
        )),
        (status = 400, response = Problem),
    )
)]
pub async fn list(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<(HeaderMap, Json<Vec<Summary>>), Problem> {
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    let wanted = api.agent.table().all().into_iter().filter(|sandbox| query.wants(sandbox));
    let Page { sandboxes, next } = page::of(wanted.collect(), &query);
    let mut headers = HeaderMap::new();
    if let Some(place) = next {
        let token = place.to_string().try_into().map_err(Problem::internal)?;
        headers.insert("x-next-token", token);
    }
    Ok((headers, Json(sandboxes.iter().map(|sandbox| Summary::of(sandbox)).collect())))
}
