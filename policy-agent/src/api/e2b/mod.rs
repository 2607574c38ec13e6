//! The part of the API that E2B's clients speak, so that they work unmodified.
//!
//! ```text
//! create    a free interface becomes a sandbox          connection   what create and connect answer
//! lease     connect, and how long a sandbox lives       network      its egress fields, and their echo
//! list      which sandboxes there are (query, page)     detail       one of them; its end
//! ```

mod connection;
mod create;
mod detail;
#[cfg(test)]
mod fuzz;
mod lease;
mod list;
mod network;
mod page;
mod query;
mod strangers;

use std::sync::Arc;

use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem};
use crate::agent::{Error, Sandbox};

/// What E2B calls the host of a sandbox. It is the same for all of them here; clients of old append
/// it to the ID in public names, where the gateway overlooks it.
const CLIENT_ID: &str = "agent";

/// The version of E2B's daemon in the sandbox that clients shall expect: they refuse sandboxes with
/// an old one (before 0.1.0), and ask more of newer ones.
const ENVD_VERSION: &str = "0.5.13";

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create::create_v1))
        .routes(routes!(create::create_v2))
        .routes(routes!(detail::show, detail::kill))
        .routes(routes!(network::replace))
        .routes(routes!(lease::set_timeout))
        .routes(routes!(lease::refresh))
        .merge(of_both_versions())
        // Merged, since what is nested takes the place of what is there below the same path.
        .merge(OpenApiRouter::new().nest("/v2", named_v2(of_both_versions())))
}

/// The routes that E2B has below `/v2`, too.
fn of_both_versions() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list::list)).routes(routes!(lease::connect))
}

/// The same under other names, since a document has each name once.
fn named_v2(mut router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    let paths = router.get_openapi_mut().paths.paths.values_mut();
    let operations = paths.flat_map(|path| [path.get.as_mut(), path.post.as_mut()]).flatten();
    for name in operations.filter_map(|operation| operation.operation_id.as_mut()) {
        name.push_str("_v2");
    }
    router
}

fn find(api: &Api, id: &str) -> Result<Arc<Sandbox>, Problem> {
    Ok(api.agent.table().find(id).ok_or_else(|| Error::Unknown(id.to_owned()))?)
}

/// The domain of public URLs.
fn domain(api: &Api) -> Option<String> {
    api.config.gateway.as_ref()?.domain.clone()
}

/// The template that a sandbox was created from; one that was applied has none.
fn template(sandbox: &Sandbox) -> String {
    sandbox.life.origin().map(|origin| origin.template_id.clone()).unwrap_or_default()
}
