//! Error responses: `{"code":400,"message":"…"}`.

use std::fmt;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use utoipa::{ToResponse, ToSchema};

use crate::{agent::AgentError, policy::ValidationError};

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

    /// 500: the agent failed. Logs the error.
    pub fn internal(error: impl fmt::Display) -> Self {
        tracing::error!("a request failed: {error:#}");
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: format!("{error:#}") }
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
            AgentError::Failed { .. } | AgentError::Internal(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self { status, message: error_chain(&error) }
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
fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_documented_status() {
        let status = |error: AgentError| Problem::from(error).status().as_u16();
        let sandbox: crate::policy::SandboxId = "web".parse().expect("an ID");
        assert_eq!(status(ValidationError::about_field("mac", "is wrong").into()), 400);
        assert_eq!(status(AgentError::UnknownSandbox("x".into())), 404);
        assert_eq!(status(AgentError::SlotsExhausted { sandbox: sandbox.clone(), limit: 1 }), 503);
        assert_eq!(status(AgentError::NoFreeInterface), 503);
        assert_eq!(status(AgentError::IdempotencyKeyReused(sandbox.clone())), 409);
        let cause = anyhow::anyhow!("inner").context("outer");
        let failed = AgentError::Failed {
            sandbox,
            failure: "cannot attach",
            consequence: "it stays",
            cause,
        };
        let problem = Problem::from(failed);
        assert_eq!(problem.status().as_u16(), 500);
        assert_eq!(problem.message(), "sandbox web: cannot attach; it stays: outer: inner");
    }
}
