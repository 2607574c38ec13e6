//! `GET /health` and `GET /metrics`.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::metrics::Format;

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
        description = "Prometheus' text format, or OpenMetrics where `Accept` asks for it",
        content((String = "text/plain"), (String = "application/openmetrics-text")),
    )),
)]
pub async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = headers.get_all(header::ACCEPT).into_iter();
    let format = Format::asked_for(accept.filter_map(|value| value.to_str().ok()));
    let turn = api.metrics.turn().await;
    let render = move || {
        // Until it is done, even if the client goes.
        let _turn = turn;
        api.metrics.render(&api.agent, &api.events, api.proxy.counts(), &api.gateway)
    };
    let text = spawn_blocking(render).await.map_err(Problem::internal)?;
    let text = format.write(text.map_err(Problem::internal)?);
    let fields = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
    Ok((fields, text).into_response())
}
