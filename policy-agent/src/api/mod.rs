//! The HTTP API: on a Unix socket, for whoever may open it, and over TCP, for whoever has a key.

mod answer;
mod body;
mod document;
mod e2b;
mod events;
mod explain;
mod flag;
mod guests;
mod key;
mod problem;
mod public_url;
mod sandboxes;
pub mod serve;
mod status;
mod timely;

use std::sync::Arc;

use axum::{Extension, Router, extract::DefaultBodyLimit, http::Uri, middleware, routing::get};
use tokio::sync::watch;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::key::Guard;
pub use self::{
    answer::Answer,
    explain::{Asked, Question},
    key::Keys,
    problem::Problem,
    public_url::{PublicUrl, Token},
};
use crate::{agent::Agent, config::Config, events::Hub, gateway, metrics::Metrics, proxy::Proxy};

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
    /// What the gateway counts.
    pub gateway: gateway::Counts,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The agent's configuration, for public URLs.
    pub config: Arc<Config>,
    /// Turns true when the agent is about to stop, which ends streams.
    pub stopping: watch::Receiver<bool>,
}

/// All routes, without a key.
pub fn router(api: Api) -> Router {
    let (router, document) = routes().split_for_parts();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(Extension(Arc::new(document::Text::of(document))))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(api)
}

/// Each route says by itself what it is in the document.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(document::Document::openapi())
        .routes(routes!(status::health))
        .routes(routes!(status::metrics))
        .routes(routes!(document::show))
        .merge(e2b::routes())
        .routes(routes!(sandboxes::list, sandboxes::put_all))
        .routes(routes!(sandboxes::get, sandboxes::put, sandboxes::delete))
        .routes(routes!(public_url::url))
        .routes(routes!(public_url::token))
        .routes(routes!(explain::explain))
        .routes(routes!(events::stream))
}

/// All routes for whoever has a key; `/health` for everyone.
pub fn guarded(api: Api, keys: Keys) -> Router {
    let advice = "send one of the agent's api_keys as X-API-Key, or as Authorization: Bearer";
    let guard = Guard { keys, open: Some("/health"), advice };
    router(api).layer(middleware::from_fn_with_state(Arc::new(guard), key::check))
}

/// `/metrics` alone: for everyone, or for whoever has the token.
pub fn metrics_only(api: Api, token: Option<&str>) -> Router {
    let router = Router::new()
        .route("/metrics", get(status::metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api);
    let Some(token) = token else { return router };
    let keys = Keys::new(&[token.to_owned()]);
    let advice = "send the token of [metrics] as Authorization: Bearer";
    let guard = Guard { keys, open: None, advice };
    router.layer(middleware::from_fn_with_state(Arc::new(guard), key::check))
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

async fn no_such_method(uri: Uri) -> Problem {
    Problem::method_not_allowed(format!("{} does not do that; try another method", uri.path()))
}
