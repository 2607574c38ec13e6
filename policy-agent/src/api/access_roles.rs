//! What the roles of API keys permit. A new route needs `admin` unless it is reading.

use axum::http::Method;

use crate::config::ApiRole;

/// The agent's own part of the API. All other paths are E2B-compatible.
const AGENT_PATHS: &str = "/agent/";
/// The end of the path of a sandbox's traffic token.
const TOKEN_PATH_END: &str = "/token";
/// Asks what a policy would do, and changes nothing.
const EXPLAIN_PATH: &str = "/agent/v1/explain";
/// The sandboxes of the agent's own part.
const AGENT_SANDBOXES: &str = "/agent/v1/sandboxes/";

/// Whether a role permits a request.
pub(super) fn permits(role: ApiRole, method: &Method, path: &str) -> bool {
    match role {
        ApiRole::Admin => true,
        ApiRole::Sandboxes => {
            // Creating one here names an interface of the host, which only `admin` may.
            let deletes = method == Method::DELETE && path.starts_with(AGENT_SANDBOXES);
            is_reading(method, path) || deletes || !path.starts_with(AGENT_PATHS)
        }
        ApiRole::Read => is_reading(method, path) && !path.ends_with(TOKEN_PATH_END),
    }
}

/// Whether a request changes nothing.
pub(super) fn is_reading(method: &Method, path: &str) -> bool {
    *method == Method::GET
        || *method == Method::HEAD
        || (*method == Method::POST && path == EXPLAIN_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests, and the least role that permits them.
    const REQUESTS: [(&str, &str, ApiRole); 21] = [
        ("GET", "/sandboxes", ApiRole::Read),
        ("GET", "/metrics", ApiRole::Read),
        ("GET", "/agent/v1/sandboxes/web", ApiRole::Read),
        ("GET", "/agent/v1/sandboxes/web/ca", ApiRole::Read),
        ("GET", "/agent/v1/events", ApiRole::Read),
        ("POST", "/agent/v1/explain", ApiRole::Read),
        ("GET", "/agent/v1/sandboxes/web/token", ApiRole::Sandboxes),
        ("POST", "/v2/sandboxes", ApiRole::Sandboxes),
        ("PUT", "/sandboxes/web/network", ApiRole::Sandboxes),
        ("POST", "/sandboxes/web/connect", ApiRole::Sandboxes),
        ("DELETE", "/sandboxes/web", ApiRole::Sandboxes),
        ("GET", "/secrets", ApiRole::Read),
        ("POST", "/secrets", ApiRole::Sandboxes),
        ("DELETE", "/secrets/example", ApiRole::Sandboxes),
        ("DELETE", "/agent/v1/sandboxes/web", ApiRole::Sandboxes),
        ("DELETE", "/agent/v1/sandboxes/web/token", ApiRole::Sandboxes),
        ("PUT", "/agent/v1/sandboxes/web", ApiRole::Admin),
        ("PUT", "/agent/v1/sandboxes", ApiRole::Admin),
        ("POST", "/agent/v1/sandboxes/web/mode", ApiRole::Admin),
        ("POST", "/agent/v1/anything", ApiRole::Admin),
        ("DELETE", "/agent/v1/anything", ApiRole::Admin),
    ];

    #[test]
    fn every_role_permits_what_a_lesser_one_does_and_more() {
        let roles = [ApiRole::Read, ApiRole::Sandboxes, ApiRole::Admin];
        for (method, path, least) in REQUESTS {
            let method: Method = method.parse().expect(method);
            let permitted = roles.map(|role| permits(role, &method, path));
            let least = roles.iter().position(|role| *role == least).expect("a role");
            assert_eq!(permitted, [0, 1, 2].map(|rank| rank >= least), "{method} {path}");
        }
    }
}
