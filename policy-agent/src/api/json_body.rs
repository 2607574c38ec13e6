//! Parses request bodies as JSON, whatever their content type.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{StatusCode, header::CONTENT_LENGTH},
};
use serde::de::DeserializeOwned;

use super::{BODY_LIMIT, Problem};
use crate::policy::parse_json;

/// The bytes of a request body.
pub(super) struct JsonBody(Bytes);

impl JsonBody {
    /// Parses the body.
    ///
    /// # Errors
    /// The body is not JSON, or does not match `T`; the error names the field.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.0.trim_ascii().is_empty() {
            return Err(Problem::bad_request("the body is empty; send a JSON object"));
        }
        Ok(parse_json(&self.0)?)
    }

    /// Like [`Self::parse`], but an empty body gives the default.
    ///
    /// # Errors
    /// The body is not JSON, or does not match `T`; the error names the field.
    pub(super) fn parse_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.0.trim_ascii().is_empty() { Ok(T::default()) } else { self.parse() }
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // Reject an oversized body before reading any of it.
        let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length = length.and_then(|length| length.parse::<usize>().ok());
        if length.is_some_and(|length| length > BODY_LIMIT) {
            return Err(too_large());
        }
        Bytes::from_request(request, state).await.map(Self).map_err(rejection_problem)
    }
}

fn too_large() -> Problem {
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    Problem::from_status(status, format!("the body is larger than {BODY_LIMIT} bytes"))
}

fn rejection_problem(rejection: BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        status => Problem::from_status(status, rejection.body_text()),
    }
}
