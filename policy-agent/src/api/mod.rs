//! The HTTP API: on a Unix socket, for whoever may open it, and over TCP, for whoever has a key.

mod body;
mod events;
mod explain;
mod key;
mod problem;
mod sandboxes;
pub mod serve;
mod timely;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde_json::json;
use tokio::{sync::watch, task::spawn_blocking};

pub use self::{
    explain::{Answer, Question},
    key::Keys,
    problem::Problem,
};
use crate::{agent::Agent, events::Hub, metrics::Metrics, proxy::Proxy};

/// Bytes of a body: two lists of 100 000 of the longest domains fit.
pub const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    /// The agent.
    pub agent: Agent,
    /// The events.
    pub events: Arc<Hub>,
    /// The egress proxy, for what it counts.
    pub proxy: Arc<Proxy>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Turns true when the agent is about to stop, which ends streams.
    pub stopping: watch::Receiver<bool>,
}

/// All routes, without a key.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/sandboxes/{id}/network", put(sandboxes::put_network))
        .route("/agent/v1/sandboxes", get(sandboxes::list).put(sandboxes::put_all))
        .route(
            "/agent/v1/sandboxes/{id}",
            get(sandboxes::get).put(sandboxes::put).delete(sandboxes::delete),
        )
        .route("/agent/v1/explain", post(explain::explain))
        .route("/agent/v1/events", get(events::stream))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(api)
}

/// All routes for whoever has a key; `/health` for everyone.
pub fn guarded(api: Api, keys: Keys) -> Router {
    router(api).layer(middleware::from_fn_with_state(Arc::new(keys), key::check))
}

async fn health(State(api): State<Api>) -> Response {
    Json(json!({ "status": "ok", "sandboxes": api.agent.table().len() })).into_response()
}

async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    let render = move || api.metrics.render(&api.agent, &api.events, api.proxy.counts());
    let text = spawn_blocking(render).await.map_err(Problem::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text.map_err(Problem::internal)?).into_response())
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

async fn no_such_method(uri: Uri) -> Problem {
    Problem::method_not_allowed(format!("{} does not do that; try another method", uri.path()))
}
