//! The lifetime of a sandbox: `connect`, `timeout` and `refreshes`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

use super::sandbox_access::E2bSandboxAccess;
use crate::{
    agent::Sandbox,
    api::{ApiState, Problem, json_body::JsonBody},
    policy::whole_number,
};

/// The longest lease: 30 days.
const MAX_LEASE_SECONDS: u32 = 30 * 24 * 60 * 60;
/// The lease of a request that names none.
pub(super) const DEFAULT_LEASE: LeaseSeconds = LeaseSeconds(300);

/// A lease in whole seconds from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(minimum = 1, maximum = 2_592_000, example = 300)]
pub(in crate::api) struct LeaseSeconds(u32);

impl LeaseSeconds {
    /// The lease as a duration.
    pub(in crate::api) fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl<'de> Deserialize<'de> for LeaseSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let seconds = whole_number(&value).and_then(|seconds| u32::try_from(seconds).ok());
        let seconds = seconds.filter(|seconds| (1..=MAX_LEASE_SECONDS).contains(seconds));
        seconds.map(Self).ok_or_else(|| {
            let problem = "write a whole number of seconds from 1 to";
            de::Error::custom(format_args!("{value}: {problem} {MAX_LEASE_SECONDS}"))
        })
    }
}

/// The options of a connect request.
#[derive(Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub(super) struct E2bConnectBody {
    /// The minimum remaining lifetime in seconds. Default: 300.
    #[serde(default)]
    timeout: Option<LeaseSeconds>,
}

/// The new end of a sandbox.
#[derive(Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub(super) struct E2bTimeoutBody {
    /// The remaining lifetime in seconds. It may be shorter or longer than before.
    timeout: LeaseSeconds,
}

/// The minimum lifetime of a sandbox.
#[derive(Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub(super) struct E2bRefreshBody {
    /// The minimum remaining lifetime in seconds. Default: 300.
    #[serde(default)]
    duration: Option<LeaseSeconds>,
}

/// Connect to a sandbox
///
/// Extends its lifetime to at least `timeout` seconds from now.
#[utoipa::path(
    post, path = "/sandboxes/{id}/connect", tag = "E2B", operation_id = "connect_sandbox",
    request_body = E2bConnectBody,
    responses(
        (status = 200, description = "How to speak with it", body = E2bSandboxAccess),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub(super) async fn connect(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<E2bSandboxAccess>, Problem> {
    let E2bConnectBody { timeout } = body.parse_or_default()?;
    let sandbox = extend_lease(&api, &id, timeout.unwrap_or(DEFAULT_LEASE)).await?;
    Ok(Json(E2bSandboxAccess::with_tokens(&api, &sandbox)))
}

/// Set when a sandbox ends
///
/// A sandbox that was applied has no end, and none can be set.
#[utoipa::path(
    post, path = "/sandboxes/{id}/timeout", tag = "E2B", operation_id = "set_sandbox_timeout",
    request_body = E2bTimeoutBody,
    responses(
        (status = 204, description = "It ends then"),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 409, response = Problem), (status = 413, response = Problem),
    )
)]
pub(super) async fn set_timeout(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<StatusCode, Problem> {
    let E2bTimeoutBody { timeout } = body.parse()?;
    let sandbox = api.agent.renew(&id, timeout.duration()).await?;
    if sandbox.lifetime.ends_at().is_none() {
        let problem =
            format!("sandbox {id} was applied and has no end: delete it when it shall end");
        return Err(Problem::from_status(StatusCode::CONFLICT, problem));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Extend the lifetime of a sandbox
#[utoipa::path(
    post, path = "/sandboxes/{id}/refreshes", tag = "E2B", operation_id = "refresh_sandbox",
    request_body = E2bRefreshBody,
    responses(
        (status = 204, description = "It lives at least that long"),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub(super) async fn refresh(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<StatusCode, Problem> {
    let E2bRefreshBody { duration } = body.parse_or_default()?;
    extend_lease(&api, &id, duration.unwrap_or(DEFAULT_LEASE)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Extends a lease. One that ends later or never stays as it is, as E2B's clients expect.
async fn extend_lease(
    api: &ApiState,
    id: &str,
    timeout: LeaseSeconds,
) -> Result<Arc<Sandbox>, Problem> {
    let sandbox = api.agent.registry().require(id)?;
    let end = Timestamp::now().saturating_add(SignedDuration::from_secs(timeout.0.into()));
    match (sandbox.lifetime.ends_at(), end) {
        (Some(ends), Ok(end)) if ends < end => Ok(api.agent.renew(id, timeout.duration()).await?),
        _ => Ok(sandbox),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_of_sensible_length_and_the_error_names_the_longest() {
        let read = |text: &str| serde_json::from_str::<LeaseSeconds>(text);
        assert_eq!(read("1").expect("good").duration(), Duration::from_secs(1));
        assert_eq!(read("300.0").expect("whole"), DEFAULT_LEASE);
        assert_eq!(
            read(&MAX_LEASE_SECONDS.to_string()).expect("good"),
            LeaseSeconds(MAX_LEASE_SECONDS)
        );
        for bad in ["0", "-1", "1.5", "\"5\"", "true", "2592001", "1e300"] {
            let error = read(bad).expect_err(bad).to_string();
            assert!(error.contains("2592000"), "{error}");
        }
    }

    #[test]
    fn the_document_tells_the_longest_lease() {
        let schema = serde_json::to_value(<LeaseSeconds as utoipa::PartialSchema>::schema());
        assert_eq!(schema.expect("JSON")["maximum"], MAX_LEASE_SECONDS);
    }
}
