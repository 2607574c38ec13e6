//! `http://policy.internal/`: what a sandbox may know of its own policy. The proxy answers requests
//! for this host itself, on port 80 of any address. Everything is read only, and nothing is said of
//! other sandboxes, of secrets, or of what the operator denies and why.

mod denials;
mod explain;
mod visible_verdict;

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};
use serde_json::{Value, json};

use super::sandbox_proxy::SandboxProxy;
use crate::policy::{DomainName, RequestedName};

/// What `/` says. `{host}` is the name under which it is asked.
const OVERVIEW: &str = "\
A network policy decides what this sandbox may reach. A connection that ends at once, with a reset or a
TLS alert, may have been denied.

http://{host}/explain?url=URL  whether a URL may be reached, and what would allow it
http://{host}/denials          what was denied lately
http://{host}/policy           the policy, without secrets
http://{host}/ca.pem           the certificate to trust, if the policy sets headers (network.rules)

Nothing can be changed here: whoever runs the sandbox can change its policy.
";

/// Whether a request for this name is answered by the proxy itself.
pub(super) fn is_info_host(info_host: Option<&DomainName>, name: &RequestedName) -> bool {
    info_host.is_some() && name.domain() == info_host
}

/// Answers a request of a sandbox.
pub(super) async fn respond<B>(
    sandbox_proxy: &SandboxProxy,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is possible here\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/" => text(StatusCode::OK, &overview(sandbox_proxy)),
        "/ca.pem" => ca_certificate(sandbox_proxy),
        "/policy" => json_response(StatusCode::OK, &policy(sandbox_proxy)),
        "/denials" => json_response(StatusCode::OK, &denials::recent_denials(sandbox_proxy)),
        "/explain" => {
            match explain::explain(sandbox_proxy, request.uri().query().unwrap_or_default()).await {
                Ok(verdict) => json_response(StatusCode::OK, &verdict),
                Err(problem) => {
                    let body = json!({ "code": 400, "message": problem });
                    json_response(StatusCode::BAD_REQUEST, &body)
                }
            }
        }
        _ => text(StatusCode::NOT_FOUND, &overview(sandbox_proxy)),
    }
}

fn overview(sandbox_proxy: &SandboxProxy) -> String {
    let host = sandbox_proxy.context.info_host.as_ref();
    OVERVIEW.replace("{host}", host.map_or("policy.internal", DomainName::as_str))
}

fn ca_certificate(sandbox_proxy: &SandboxProxy) -> Response<Full<Bytes>> {
    if sandbox_proxy.active_policy().policy.header_rules().is_empty() {
        let problem = "the policy has no network.rules, so there is nothing to trust\n";
        return text(StatusCode::NOT_FOUND, problem);
    }
    match sandbox_proxy.client_tls() {
        Ok(tls) => {
            let mut response = text(StatusCode::OK, tls.ca_pem());
            let kind = HeaderValue::from_static("application/x-pem-file");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            tracing::error!(sandbox = %sandbox_proxy.sandbox, "no CA: {error:#}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the certificate cannot be read\n")
        }
    }
}

/// The policy as it was requested. Of headers, only the names are shown.
fn policy(sandbox_proxy: &SandboxProxy) -> Value {
    let active_policy = sandbox_proxy.active_policy();
    let mut network = serde_json::to_value(&active_policy.network).unwrap_or_default();
    if let Some(egress_proxy) = network.get_mut("egressProxy").and_then(Value::as_object_mut) {
        egress_proxy.retain(|field, _| field == "address");
    }
    let rules = active_policy.policy.header_rules().iter();
    let rules: serde_json::Map<_, _> = rules
        .map(|rule| {
            let names: Vec<_> = rule.headers().map(|(name, _)| name.as_str()).collect();
            (rule.key().to_string(), json!({ "headers": names }))
        })
        .collect();
    if let Some(network) = network.as_object_mut() {
        network.remove("rules");
        if !rules.is_empty() {
            network.insert("rules".to_owned(), rules.into());
        }
    }
    json!({ "sandboxID": sandbox_proxy.sandbox.as_str(), "network": network })
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text.to_owned())
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    response(status, "application/json", format!("{body}\n"))
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
