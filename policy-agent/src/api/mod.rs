//! The HTTP API: on a Unix socket, protected by file permissions, and over TCP with a key.

mod access_roles;
mod api_keys;
mod client_limiter;
mod deadline_body;
mod diagnosis;
mod e2b;
mod event_stream;
mod explain;
mod explain_response;
mod flow_stream;
mod flows;
mod json_body;
mod list_edits;
mod openapi;
mod problem;
mod public_url;
mod query_flag;
mod sandbox_ca;
mod sandbox_mode;
mod sandboxes;
pub mod server;
mod status;
mod suggestion;
mod time_query;
mod ui;

use std::sync::Arc;

use axum::{Extension, Router, extract::DefaultBodyLimit, http::Uri, middleware, routing::get};
use tokio::sync::watch;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::api_keys::KeyGuard;
pub(crate) use self::time_query::parse_until;
pub use self::{
    api_keys::{ApiKeys, CurrentApiKeys},
    explain::{ExplainQuery, ExplainRequest},
    explain_response::ExplainResponse,
    list_edits::ListEditRequest,
    problem::Problem,
    public_url::{PublicUrl, TrafficToken},
    sandbox_mode::ModeRequest,
};
use crate::{
    agent::Agent,
    config::AgentConfig,
    events::{EventBuffer, RecordWriter},
    gateway,
    metrics::MetricsExporter,
    proxy::TransparentProxy,
    secrets::SecretStore,
};

/// The largest request body in bytes. Two lists of 100 000 domains of maximum length fit.
pub const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// Says whether the agent serves, without a key.
const HEALTH_PATH: &str = "/health";

/// The state that all handlers share.
#[derive(Clone)]
pub struct ApiState {
    /// The agent that applies changes.
    pub agent: Agent,
    /// The buffered and live events.
    pub events: Arc<EventBuffer>,
    /// Writes the record of flows to disk.
    pub record_writer: Arc<RecordWriter>,
    /// The egress proxy, for its metrics.
    pub proxy: Arc<TransparentProxy>,
    /// The secrets that headers of rules refer to.
    pub secrets: SecretStore,
    /// The gateway's metrics.
    pub gateway: gateway::GatewayMetrics,
    /// Renders the metrics.
    pub metrics: Arc<MetricsExporter>,
    /// The agent's configuration, for public URLs.
    pub config: Arc<AgentConfig>,
    /// Becomes true when the agent begins to stop, which ends streams.
    pub stopping: watch::Receiver<bool>,
}

/// All routes, without authentication.
pub fn router(api: ApiState) -> Router {
    let (router, document) = routes().split_for_parts();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(Extension(Arc::new(openapi::OpenApiText::render(document))))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(api)
}

/// Each route adds itself to the OpenAPI document.
fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::ApiDocument::openapi())
        .routes(routes!(status::health))
        .routes(routes!(status::metrics))
        .routes(routes!(openapi::show))
        .merge(e2b::routes())
        .routes(routes!(sandboxes::list, sandboxes::put_all))
        .routes(routes!(sandboxes::get, sandboxes::put, sandboxes::delete))
        .routes(routes!(sandboxes::traffic))
        .routes(routes!(suggestion::suggestion))
        .routes(routes!(diagnosis::diagnose))
        .routes(routes!(list_edits::allow))
        .routes(routes!(list_edits::deny))
        .routes(routes!(sandbox_mode::set_mode))
        .routes(routes!(public_url::url))
        .routes(routes!(sandbox_ca::show_ca))
        .routes(routes!(public_url::token, public_url::issue_token, public_url::revoke_tokens))
        .routes(routes!(explain::explain))
        .routes(routes!(event_stream::stream))
        .routes(routes!(flows::denials))
        .routes(routes!(flows::flows))
        .routes(routes!(flows::all_denials))
        .routes(routes!(flows::all_flows))
}

/// All routes behind API keys, except `/health` and the files of the page, if it is served.
pub fn router_with_keys(api: ApiState, keys: CurrentApiKeys) -> Router {
    let advice = "send one of the agent's api_keys as X-API-Key, or as Authorization: Bearer";
    let (is_public, router): (fn(&str) -> bool, _) = match api.config.api.ui {
        true => {
            (|path| path == HEALTH_PATH || ui::is_page_path(path), router(api).merge(ui::routes()))
        }
        false => (|path| path == HEALTH_PATH, router(api)),
    };
    let key_guard = KeyGuard { keys, is_public, advice };
    router.layer(middleware::from_fn_with_state(Arc::new(key_guard), api_keys::require_key))
}

/// The `/metrics` route alone, behind these keys.
pub fn metrics_router(api: ApiState, keys: CurrentApiKeys) -> Router {
    let router = Router::new()
        .route("/metrics", get(status::metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api);
    let advice = "send the token of [metrics] as Authorization: Bearer";
    let key_guard = KeyGuard { keys, is_public: |_| false, advice };
    router.layer(middleware::from_fn_with_state(Arc::new(key_guard), api_keys::require_key))
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

async fn no_such_method(uri: Uri) -> Problem {
    Problem::method_not_allowed(format!("{} does not do that; try another method", uri.path()))
}
