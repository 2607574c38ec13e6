//! `GET /health` and `GET /metrics`.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

use super::{Api, Problem};

/// That the agent answers.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    status: &'static str,
    /// How many sandboxes there are.
    sandboxes: usize,
}

/// Does the agent answer?
///
/// Needs no key.
#[utoipa::path(
    get, path = "/health", tag = "Agent", operation_id = "health",
    responses((status = 200, description = "It does", body = Health)),
)]
pub async fn health(State(api): State<Api>) -> Json<Health> {
    Json(Health { status: "ok", sandboxes: api.agent.table().len() })
}

/// Metrics for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "Agent", operation_id = "metrics",
    responses((
        status = 200,
        description = "OpenMetrics",
        body = String,
        content_type = "application/openmetrics-text",
    )),
)]
pub async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    let render =
        move || api.metrics.render(&api.agent, &api.events, api.proxy.counts(), &api.gateway);
    let text = spawn_blocking(render).await.map_err(Problem::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text.map_err(Problem::internal)?).into_response())
}
