//! How long a sandbox lives: `connect`, `timeout` and `refreshes`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

use super::{connection::Connection, find};
use crate::{
    agent::Sandbox,
    api::{Api, Problem, body::Body},
    policy::whole,
};

/// The longest lease: 30 days.
const LONGEST: u32 = 30 * 24 * 60 * 60;
/// Where none is said.
pub const DEFAULT: Seconds = Seconds(300);

/// A lease in whole seconds, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(minimum = 1, maximum = 2_592_000, example = 300)]
pub struct Seconds(u32);

impl Seconds {
    /// The same as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let seconds = whole(&value).and_then(|seconds| u32::try_from(seconds).ok());
        let seconds = seconds.filter(|seconds| (1..=LONGEST).contains(seconds));
        seconds.map(Self).ok_or_else(|| {
            let problem = "write a whole number of seconds from 1 to";
            de::Error::custom(format_args!("{value}: {problem} {LONGEST}"))
        })
    }
}

/// What `connect` may be told.
#[derive(Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct Connect {
    /// It lives at least that long from now on. Absent: 300.
    #[serde(default)]
    timeout: Option<Seconds>,
}

/// When a sandbox shall end.
#[derive(Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct Timeout {
    /// From now on, be that sooner or later than before.
    timeout: Seconds,
}

/// How long a sandbox shall live at least.
#[derive(Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct Refresh {
    /// From now on. Absent: 300.
    #[serde(default)]
    duration: Option<Seconds>,
}

/// Connect to a sandbox
///
/// It lives at least `timeout` seconds from now on.
#[utoipa::path(
    post, path = "/sandboxes/{id}/connect", tag = "E2B", operation_id = "connect_sandbox",
    request_body = Connect,
    responses(
        (status = 200, description = "How to speak with it", body = Connection),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub async fn connect(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Connection>, Problem> {
    let Connect { timeout } = body.parse_or_default()?;
    let sandbox = prolong(&api, &id, timeout.unwrap_or(DEFAULT)).await?;
    Ok(Json(Connection::secure(&api, &sandbox)))
}

/// Set when a sandbox ends
///
/// One that was applied has no end to be set.
#[utoipa::path(
    post, path = "/sandboxes/{id}/timeout", tag = "E2B", operation_id = "set_sandbox_timeout",
    request_body = Timeout,
    responses(
        (status = 204, description = "It ends then"),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 409, response = Problem), (status = 413, response = Problem),
    )
)]
pub async fn set_timeout(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let Timeout { timeout } = body.parse()?;
    let sandbox = api.agent.renew(&id, timeout.duration()).await?;
    if sandbox.life.ends().is_none() {
        let problem =
            format!("sandbox {id} was applied and has no end: delete it when it shall end");
        return Err(Problem::with_status(StatusCode::CONFLICT, problem));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Prolong a sandbox's life
#[utoipa::path(
    post, path = "/sandboxes/{id}/refreshes", tag = "E2B", operation_id = "refresh_sandbox",
    request_body = Refresh,
    responses(
        (status = 204, description = "It lives at least that long"),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub async fn refresh(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let Refresh { duration } = body.parse_or_default()?;
    prolong(&api, &id, duration.unwrap_or(DEFAULT)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// As E2B's clients expect it, a lease that ends later, or never, stays as it is.
async fn prolong(api: &Api, id: &str, timeout: Seconds) -> Result<Arc<Sandbox>, Problem> {
    let sandbox = find(api, id)?;
    let end = Timestamp::now().saturating_add(SignedDuration::from_secs(timeout.0.into()));
    match (sandbox.life.ends(), end) {
        (Some(ends), Ok(end)) if ends < end => Ok(api.agent.renew(id, timeout.duration()).await?),
        _ => Ok(sandbox),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_of_sensible_length_and_the_error_names_the_longest() {
        let read = |text: &str| serde_json::from_str::<Seconds>(text);
        assert_eq!(read("1").expect("good").duration(), Duration::from_secs(1));
        assert_eq!(read("300.0").expect("whole"), DEFAULT);
        assert_eq!(read(&LONGEST.to_string()).expect("good"), Seconds(LONGEST));
        for bad in ["0", "-1", "1.5", "\"5\"", "true", "2592001", "1e300"] {
            let error = read(bad).expect_err(bad).to_string();
            assert!(error.contains("2592000"), "{error}");
        }
    }

    #[test]
    fn the_document_tells_the_longest_lease() {
        let schema = serde_json::to_value(<Seconds as utoipa::PartialSchema>::schema());
        assert_eq!(schema.expect("JSON")["maximum"], LONGEST);
    }
}
