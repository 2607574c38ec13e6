//! `POST /sandboxes` and `POST /v2/sandboxes`: create a sandbox on a free interface.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    sandbox_access::E2bSandboxAccess,
    timeouts::{DEFAULT_LEASE, LeaseSeconds},
    unknown_fields::UnknownFields,
};
use crate::{
    agent::{CreateRequest, SandboxMetadata},
    api::{ApiState, Problem, json_body::JsonBody},
    policy::{NetworkConfig, ValidationError},
};

/// The request header that makes a retried request return the same sandbox.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest idempotency key in characters.
const MAX_KEY_LEN: usize = 255;

/// A sandbox to create. Other fields of E2B's API are accepted and ignored, but an unknown field
/// whose name refers to the network is rejected.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
#[schema(as = NewSandbox)]
pub(super) struct E2bCreateBody {
    /// Any text. Returned unchanged.
    #[serde(rename = "templateID", alias = "templateId", alias = "template_id")]
    template_id: String,
    /// The lifetime in seconds, unless it is extended later. Default: 300.
    #[serde(default)]
    timeout: Option<LeaseSeconds>,
    /// Whether the response holds tokens. Always true in v2.
    #[serde(default)]
    secure: Option<bool>,
    /// `false` denies all traffic that `allowOut` does not allow.
    #[serde(rename = "allow_internet_access", alias = "allowInternetAccess", default)]
    allow_internet_access: Option<bool>,
    /// What the sandbox may reach, and how clients reach it.
    #[serde(default)]
    network: Option<NetworkConfig>,
    /// Returned unchanged. Lists can be filtered by it.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    /// E2B's identity tokens. Must be empty: this agent mints none.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    iam: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown_fields: UnknownFields,
}

/// Create a sandbox
///
/// With `secure`, the response holds the sandbox's tokens.
#[utoipa::path(
    post, path = "/sandboxes", tag = "E2B", operation_id = "create_sandbox",
    params((
        "Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters",
        min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$"
    )),
    request_body = E2bCreateBody,
    responses(
        (status = 201, description = "It is there, and its policy is enforced", body = E2bSandboxAccess),
        (status = 400, response = Problem), (status = 409, response = Problem),
        (status = 413, response = Problem), (status = 503, response = Problem),
    )
)]
pub(super) async fn create_v1(
    State(api): State<ApiState>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<(StatusCode, Json<E2bSandboxAccess>), Problem> {
    let create_body: E2bCreateBody = body.parse()?;
    let secure = create_body.secure == Some(true);
    if !secure
        && create_body.network.as_ref().is_some_and(|net| net.allow_public_traffic == Some(false))
    {
        let problem = "false needs secure: true, which returns the token to you";
        return Err(ValidationError::about_field("network.allowPublicTraffic", problem).into());
    }
    create(&api, create_body, &headers, secure).await
}

/// Create a secure sandbox
#[utoipa::path(
    post, path = "/v2/sandboxes", tag = "E2B", operation_id = "create_sandbox_v2",
    params((
        "Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters",
        min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$"
    )),
    request_body = E2bCreateBody,
    responses(
        (status = 201, description = "It is there, and its policy is enforced", body = E2bSandboxAccess),
        (status = 400, response = Problem), (status = 409, response = Problem),
        (status = 413, response = Problem), (status = 503, response = Problem),
    )
)]
pub(super) async fn create_v2(
    State(api): State<ApiState>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<(StatusCode, Json<E2bSandboxAccess>), Problem> {
    create(&api, body.parse()?, &headers, true).await
}

async fn create(
    api: &ApiState,
    create_body: E2bCreateBody,
    headers: &HeaderMap,
    secure: bool,
) -> Result<(StatusCode, Json<E2bSandboxAccess>), Problem> {
    create_body.unknown_fields.reject_network_fields()?;
    reject_identity(create_body.iam.as_ref())?;
    let request = CreateRequest {
        metadata: SandboxMetadata {
            template_id: create_body.template_id,
            metadata: create_body.metadata.unwrap_or_default(),
        },
        network: create_body.network.unwrap_or_default(),
        allow_internet_access: create_body.allow_internet_access,
        timeout: create_body.timeout.unwrap_or(DEFAULT_LEASE).duration(),
        idempotency_key: idempotency_key(headers)?,
    };
    let sandbox = api.agent.create(request).await?;
    let to_access =
        if secure { E2bSandboxAccess::with_tokens } else { E2bSandboxAccess::without_tokens };
    Ok((StatusCode::CREATED, Json(to_access(api, &sandbox))))
}

/// A sandbox that relies on tokens must not be created without them.
fn reject_identity(iam: Option<&Value>) -> Result<(), ValidationError> {
    if iam.is_none_or(is_empty) {
        return Ok(());
    }
    let problem = "this agent cannot mint identity tokens; leave it out, and use secrets in \
                   network.rules";
    Err(ValidationError::about_field("iam", problem))
}

/// Whether a value holds nothing but empty lists and objects.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ValidationError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=MAX_KEY_LEN).contains(&key.len()));
    let problem = "write 1 to 255 ASCII characters";
    key.map(|key| Some(key.to_owned()))
        .ok_or_else(|| ValidationError::about_field("Idempotency-Key", problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse_json;

    fn parse_body(text: &str) -> Result<E2bCreateBody, ValidationError> {
        parse_json(text.as_bytes())
    }

    #[test]
    fn what_clients_send_is_accepted() {
        let body = r#"{"templateID":"base","autoPause":false,"autoResume":{"enabled":false},
            "metadata":{"user":"me"},"timeout":300,"envVars":{"A":"b"},"secure":true,
            "allow_internet_access":false,"mcp":null,"iam":{},"volumeMounts":[],
            "network":{"allowOut":["1.1.1.1"],"rules":{}}}"#;
        let create_body = parse_body(body).expect("good");
        assert_eq!(create_body.template_id, "base");
        assert_eq!(create_body.allow_internet_access, Some(false));
        assert_eq!(
            create_body.metadata.as_ref().map(|metadata| metadata["user"].as_str()),
            Some("me")
        );
        assert_eq!(create_body.unknown_fields.reject_network_fields(), Ok(()));
        assert_eq!(reject_identity(create_body.iam.as_ref()), Ok(()));
    }

    #[test]
    fn identity_tokens_are_refused() {
        for (iam, good) in [
            ("null", true),
            (r#"{"tokens":{}}"#, true),
            (r#"{"tokens":{"aws":{"audience":"sts.example"}}}"#, false),
        ] {
            let body = parse_body(&format!(r#"{{"templateID":"b","iam":{iam}}}"#)).expect(iam);
            let result = reject_identity(body.iam.as_ref());
            assert_eq!(result.is_ok(), good, "{iam}");
            assert!(good || result.expect_err(iam).to_string().contains("identity tokens"));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("[]", "must be an object"),
            ("{}", "templateID: is missing"),
            (r#"{"templateID":"b","templateID":"c"}"#, "templateID: given twice"),
            (r#"{"templateID":"b","timeout":0}"#, "timeout: 0: "),
            (r#"{"templateID":"b","timeout":"5"}"#, "timeout: \"5\": "),
            (r#"{"templateID":"b","timeout":2592001}"#, "timeout: 2592001: "),
            (r#"{"templateID":"b","metadata":{"a":1}}"#, "metadata.a: must be a string"),
            (r#"{"templateID":"b","network":{"allowout":[]}}"#, "network.allowout: unknown field"),
            (r#"{"templateID":"b","network":[]}"#, "network: must be an object, not a list"),
        ] {
            let error = parse_body(text).err().map(|error| error.to_string()).expect(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_is_short_text() {
        let key = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, value.try_into().expect("a header's value"));
            idempotency_key(&headers)
        };
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
        assert_eq!(key(b"abc-1"), Ok(Some("abc-1".to_owned())));
        for bad in [b"".as_slice(), "\u{e9}".as_bytes(), &[b'a'; 256]] {
            assert_eq!(key(bad).expect_err("bad").field, "Idempotency-Key");
        }
    }
}
