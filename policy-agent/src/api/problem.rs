//! Error responses: `{"code":400,"message":"…"}`.

use std::error::Error;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use utoipa::{ToResponse, ToSchema};

use crate::{agent::AgentError, hex::random_hex, policy::ValidationError};

/// Random bytes of an error's identifier: 8 hexadecimal digits.
const ERROR_ID_BYTES: usize = 4;

/// An error response
#[derive(Clone, Debug, PartialEq, Eq, ToSchema, ToResponse)]
#[response(description = "It was not done")]
pub struct Problem {
    /// The HTTP status code.
    #[schema(rename = "code", value_type = u16, example = 400)]
    status: StatusCode,
    /// What is wrong and how to fix it, in plain text.
    message: String,
}

impl Problem {
    /// 400: the request is invalid.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// 404: the resource does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into() }
    }

    /// 405: the resource does not support the method.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, message: message.into() }
    }

    /// 401: the key is missing or wrong.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, message: message.into() }
    }

    /// 403: the key does not permit it.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, message: message.into() }
    }

    /// 500: the agent failed. Logs the error.
    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::logged(&AgentError::Internal(error.into()))
    }

    /// 500: the kernel, the disk or the agent failed. The log gets the causes with a random
    /// identifier. The client gets one line with the same identifier, and the cause only if it is
    /// one that the client can remove.
    fn logged(error: &AgentError) -> Self {
        let id = random_hex::<ERROR_ID_BYTES>().unwrap_or_default();
        tracing::error!(error_id = id, "a request failed: {}", error_chain(error));
        let cause = causes(error).find_map(|cause| cause.downcast_ref::<ValidationError>());
        let message = match cause {
            Some(cause) => format!("{error}: {cause} (error {id})"),
            None => format!("{error} (error {id}: see the agent's log)"),
        };
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message }
    }

    /// An error with any status.
    pub(super) fn from_status(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The message for the client.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<AgentError> for Problem {
    fn from(error: AgentError) -> Self {
        let status = match &error {
            AgentError::Invalid { .. } => StatusCode::BAD_REQUEST,
            AgentError::UnknownSandbox(_) => StatusCode::NOT_FOUND,
            AgentError::IdempotencyKeyReused(_) => StatusCode::CONFLICT,
            AgentError::SlotsExhausted { .. } | AgentError::NoFreeInterface => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            AgentError::Failed { .. } | AgentError::Internal(_) => return Self::logged(&error),
        };
        Self { status, message: error.to_string() }
    }
}

impl From<ValidationError> for Problem {
    fn from(invalid: ValidationError) -> Self {
        AgentError::from(invalid).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "code": self.status.as_u16(), "message": self.message });
        (self.status, Json(body)).into_response()
    }
}

/// An error and its causes in one line.
fn error_chain(error: &AgentError) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes(error: &AgentError) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::SandboxId;

    #[test]
    fn errors_have_the_documented_status() {
        let status = |error: AgentError| Problem::from(error).status().as_u16();
        let sandbox: SandboxId = "web".parse().expect("an ID");
        assert_eq!(status(ValidationError::about_field("mac", "is wrong").into()), 400);
        assert_eq!(status(AgentError::UnknownSandbox("x".into())), 404);
        assert_eq!(status(AgentError::SlotsExhausted { sandbox: sandbox.clone(), limit: 1 }), 503);
        assert_eq!(status(AgentError::NoFreeInterface), 503);
        assert_eq!(status(AgentError::IdempotencyKeyReused(sandbox.clone())), 409);
    }

    fn failed(cause: anyhow::Error) -> Problem {
        let sandbox = "web".parse().expect("an ID");
        let (failure, consequence) = ("cannot attach", "it stays");
        AgentError::Failed { sandbox, failure, consequence, cause }.into()
    }

    #[test]
    fn the_causes_of_failures_stay_in_the_log() {
        let problem = failed(anyhow::anyhow!("inner").context("outer"));
        assert_eq!(problem.status().as_u16(), 500);
        let message = problem.message();
        assert!(message.starts_with("sandbox web: cannot attach; it stays (error "), "{message}");
        assert!(message.ends_with(": see the agent's log)"), "{message}");
        assert!(!message.contains("inner") && !message.contains("outer"), "{message}");
        assert_ne!(message, failed(anyhow::anyhow!("inner")).message());
    }

    #[test]
    fn a_cause_that_the_client_can_remove_is_in_the_message() {
        let cause = ValidationError::about_entry("interface", "tap9", "is missing; create it");
        let problem = failed(anyhow::Error::from(cause).context("outer"));
        let message = problem.message();
        assert!(
            message.contains(r#"interface: "tap9": is missing; create it (error "#),
            "{message}"
        );
    }
}
