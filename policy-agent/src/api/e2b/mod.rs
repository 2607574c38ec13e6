//! The part of the API that E2B's unmodified clients use.
//!
//! ```text
//! create_sandbox  creates a sandbox on a free interface
//! sandbox_access  the response of create and connect
//! timeouts        connect, and how long a sandbox lives
//! update_network  replaces the egress fields; the network of a sandbox in responses
//! sandbox_list    the list of sandboxes (list_query, cursor, paging)
//! sandbox_detail  shows or deletes one sandbox
//! secrets         the secrets that network.rules refer to (secret_list_query, paging)
//! unknown_fields  rejects unknown fields that refer to the network
//! ```

mod create_sandbox;
mod cursor;
#[cfg(test)]
mod fuzz;
mod list_query;
mod paging;
mod sandbox_access;
mod sandbox_detail;
mod sandbox_list;
mod secret_list_query;
mod secrets;
mod timeouts;
mod unknown_fields;
mod update_network;

pub(super) use self::timeouts::LeaseSeconds;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::ApiState;
use crate::agent::Sandbox;

/// E2B's ID for the host of a sandbox. All sandboxes have the same one here. Old clients append it
/// to the ID in public names, where the gateway ignores it.
const CLIENT_ID: &str = "agent";

/// The version of envd, E2B's daemon in the sandbox, that clients should expect. They refuse
/// sandboxes with a version before 0.1.0 and use more features of newer ones.
const ENVD_VERSION: &str = "0.5.13";

/// The routes of E2B's API.
pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create_sandbox::create_v1))
        .routes(routes!(create_sandbox::create_v2))
        .routes(routes!(sandbox_detail::show, sandbox_detail::kill))
        .routes(routes!(update_network::replace))
        .routes(routes!(timeouts::set_timeout))
        .routes(routes!(timeouts::refresh))
        .routes(routes!(secrets::list, secrets::create))
        .routes(routes!(secrets::show, secrets::update, secrets::delete))
        .merge(versionless_routes())
        // Merged rather than nested into this router: nesting replaces existing routes below the
        // same path.
        .merge(OpenApiRouter::new().nest("/v2", with_v2_operation_ids(versionless_routes())))
}

/// The routes that E2B also serves below `/v2`.
fn versionless_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(sandbox_list::list)).routes(routes!(timeouts::connect))
}

/// Gives the operations other IDs, since an ID must be unique in the document.
fn with_v2_operation_ids(mut router: OpenApiRouter<ApiState>) -> OpenApiRouter<ApiState> {
    let paths = router.get_openapi_mut().paths.paths.values_mut();
    let operations = paths.flat_map(|path| [path.get.as_mut(), path.post.as_mut()]).flatten();
    for name in operations.filter_map(|operation| operation.operation_id.as_mut()) {
        name.push_str("_v2");
    }
    router
}

/// The domain of public URLs.
fn public_domain(api: &ApiState) -> Option<String> {
    api.config.gateway.as_ref()?.first_domain().map(str::to_owned)
}

/// The template that a sandbox was created from. Empty for a sandbox that was applied.
fn template_id(sandbox: &Sandbox) -> String {
    sandbox.lifetime.metadata().map(|metadata| metadata.template_id.clone()).unwrap_or_default()
}
