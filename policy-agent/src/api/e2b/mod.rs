//! The part of the API that E2B's clients speak, so that they work unmodified.
//!
//! ```text
//! create    a free interface becomes a sandbox          connection   what create and connect answer
//! lease     connect, and how long a sandbox lives       network      its egress fields, and their echo
//! list      which sandboxes there are (query, page)     detail       one of them; its end
//! ```

mod create_sandbox;
mod cursor;
#[cfg(test)]
mod fuzz;
mod list_query;
mod sandbox_access;
mod sandbox_detail;
mod sandbox_list;
mod timeouts;
mod unknown_fields;
mod update_network;

use std::sync::Arc;

use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ApiState, Problem};
use crate::agent::{AgentError, Sandbox};

/// What E2B calls the host of a sandbox. It is the same for all of them here; clients of old append
/// it to the ID in public names, where the gateway overlooks it.
const CLIENT_ID: &str = "agent";

/// The version of E2B's daemon in the sandbox that clients shall expect: they refuse sandboxes with
/// an old one (before 0.1.0), and ask more of newer ones.
const ENVD_VERSION: &str = "0.5.13";

/// The routes.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create_sandbox::create_v1))
        .routes(routes!(create_sandbox::create_v2))
        .routes(routes!(sandbox_detail::show, sandbox_detail::kill))
        .routes(routes!(update_network::replace))
        .routes(routes!(timeouts::set_timeout))
        .routes(routes!(timeouts::refresh))
        .merge(versionless_routes())
        // Merged, since what is nested takes the place of what is there below the same path.
        .merge(OpenApiRouter::new().nest("/v2", with_v2_operation_ids(versionless_routes())))
}

/// The routes that E2B has below `/v2`, too.
fn versionless_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(sandbox_list::list)).routes(routes!(timeouts::connect))
}

/// The same under other names, since a document has each name once.
fn with_v2_operation_ids(mut router: OpenApiRouter<ApiState>) -> OpenApiRouter<ApiState> {
    let paths = router.get_openapi_mut().paths.paths.values_mut();
    let operations = paths.flat_map(|path| [path.get.as_mut(), path.post.as_mut()]).flatten();
    for name in operations.filter_map(|operation| operation.operation_id.as_mut()) {
        name.push_str("_v2");
    }
    router
}

fn find_sandbox(api: &ApiState, id: &str) -> Result<Arc<Sandbox>, Problem> {
    Ok(api.agent.registry().find(id).ok_or_else(|| AgentError::UnknownSandbox(id.to_owned()))?)
}

/// The domain of public URLs.
fn public_domain(api: &ApiState) -> Option<String> {
    api.config.gateway.as_ref()?.domain.clone()
}

/// The template that a sandbox was created from; one that was applied has none.
fn template_id(sandbox: &Sandbox) -> String {
    sandbox.lifetime.metadata().map(|origin| origin.template_id.clone()).unwrap_or_default()
}
