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

use super::{ApiState, Problem};
use crate::metrics::ExpositionFormat;

/// The health of the agent.
#[derive(Serialize, ToSchema)]
pub(super) struct HealthStatus {
    /// Always `ok`.
    status: &'static str,
    /// The number of sandboxes.
    sandboxes: usize,
}

/// Check that the agent responds
///
/// Needs no key.
#[utoipa::path(
    get, path = "/health", tag = "Agent", operation_id = "health",
    responses((status = 200, description = "It does", body = HealthStatus)),
)]
pub(super) async fn health(State(api): State<ApiState>) -> Json<HealthStatus> {
    Json(HealthStatus { status: "ok", sandboxes: api.agent.registry().len() })
}

/// Show metrics for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "Agent", operation_id = "metrics",
    responses((
        status = 200,
        description = "Prometheus' text format, or OpenMetrics where `Accept` asks for it",
        content((String = "text/plain"), (String = "application/openmetrics-text")),
    )),
)]
pub(super) async fn metrics(
    State(api): State<ApiState>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let accept = headers.get_all(header::ACCEPT).into_iter();
    let format = ExpositionFormat::negotiate(accept.filter_map(|value| value.to_str().ok()));
    let permit = api.metrics.acquire_render_permit().await;
    let render = move || {
        // Held until rendering ends, even if the client disconnects.
        let _permit = permit;
        let metrics = &api.metrics;
        let text = metrics.render(&api.agent, &api.events, api.proxy.metrics(), &api.gateway);
        text.map(|text| format.convert(text))
    };
    let text = spawn_blocking(render).await.map_err(Problem::internal)?;
    let text = text.map_err(Problem::internal)?;
    let fields = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
    Ok((fields, text).into_response())
}
