//! `GET /agent/v1/sandboxes/{id}/ca`: the certificate that a sandbox with `network.rules` has to trust.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::header,
    response::IntoResponse,
};
use tokio::task::spawn_blocking;

use super::{ApiState, Problem};

/// The content type of certificates in PEM.
const PEM_CONTENT_TYPE: &str = "application/x-pem-file";

/// The certificate authority of a sandbox
///
/// A sandbox with `network.rules` has to trust it: the agent presents certificates of this authority
/// for names with a rule. It stays the same until the sandbox is deleted.
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/ca", tag = "Agent", operation_id = "ca",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The certificate (PEM)", body = String,
         content_type = "application/x-pem-file"),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn show_ca(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let sandbox = api.agent.registry().require(&id)?;
    if sandbox.active_policy.policy.header_rules().is_empty() {
        let problem = "has no network.rules, so there is no certificate to trust";
        return Err(Problem::not_found(format!("sandbox {id} {problem}")));
    }
    let proxy = Arc::clone(&api.proxy);
    let pem = spawn_blocking(move || proxy.sandbox_ca_pem(sandbox.id())).await;
    let pem = pem.map_err(Problem::internal)?.map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, PEM_CONTENT_TYPE)], pem))
}
