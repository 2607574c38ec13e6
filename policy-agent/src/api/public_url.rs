//! The public URLs of sandboxes: `GET /agent/v1/sandboxes/{id}/url` and `…/token`.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::{
    agent::{Error, Sandbox},
    policy::Invalid,
};

/// What public URLs are made of, where the agent has a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrls {
    /// The domain below which every port of a sandbox has a name.
    pub domain: String,
    /// `https`, or `http`.
    pub scheme: &'static str,
    /// The gateway's port, unless it is the scheme's own.
    pub port: Option<u16>,
}

impl PublicUrls {
    /// The URL of a port of a sandbox.
    #[must_use]
    pub fn of(&self, sandbox: &str, port: u16) -> String {
        let Self { domain, scheme, port: listens } = self;
        let listens = listens.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{port}-{sandbox}.{domain}{listens}")
    }
}

/// Which port.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The port that the service in the sandbox listens on.
    #[param(minimum = 1)]
    port: u16,
}

/// Where a port is reached.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PublicUrl {
    /// The URL.
    pub url: String,
    /// Whether it works without the token.
    pub public: bool,
}

/// What opens a sandbox's private URLs. No `Debug`: it is a secret.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// To be sent as `e2b-traffic-access-token`.
    pub traffic_access_token: String,
}

/// The public URL of a port
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/url", tag = "Agent", operation_id = "public_url",
    params(Wanted),
    responses(
        (status = 200, description = "The URL", body = PublicUrl),
        (status = 400, response = Problem),
        (status = 404, response = Problem),
    )
)]
pub async fn url(
    State(api): State<Api>,
    Path(id): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<PublicUrl>, Problem> {
    let wanted = wanted.ok().map(|Query(Wanted { port })| port).filter(|port| *port != 0);
    let problem = "add ?port=N, the port that the service listens on, 1 to 65535";
    let port = wanted.ok_or_else(|| Invalid::field("port", problem))?;
    let sandbox = api.agent.table().find(&id).ok_or(Error::Unknown(id))?;
    let Some(urls) = &api.public else {
        let problem = "sandboxes have no public URLs: set domain in [gateway] of the agent's \
                       configuration, and start it again";
        return Err(Problem::not_found(problem));
    };
    let url = urls.of(sandbox.id().as_str(), port);
    Ok(Json(PublicUrl { url, public: is_public(&sandbox) }))
}

/// The traffic token of a sandbox
#[utoipa::path(
    get, path = "/agent/v1/sandboxes/{id}/token", tag = "Agent", operation_id = "traffic_token",
    responses(
        (status = 200, description = "The token, a secret", body = Token),
        (status = 404, response = Problem),
    )
)]
pub async fn token(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Token>, Problem> {
    let sandbox = api.agent.table().find(&id).ok_or(Error::Unknown(id))?;
    Ok(Json(Token { traffic_access_token: sandbox.life.token().reveal().to_owned() }))
}

fn is_public(sandbox: &Sandbox) -> bool {
    sandbox.rules.policy.allow_public_traffic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_named_only_where_browsers_need_it() {
        let domain = "sandbox.example.com".to_owned();
        let urls = PublicUrls { domain, scheme: "https", port: None };
        assert_eq!(urls.of("web", 3000), "https://3000-web.sandbox.example.com");
        let urls = PublicUrls { scheme: "http", port: Some(8080), ..urls };
        assert_eq!(urls.of("web", 3000), "http://3000-web.sandbox.example.com:8080");
    }
}
