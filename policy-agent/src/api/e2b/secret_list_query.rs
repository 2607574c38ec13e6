//! Query parameters of the list of secrets.

use form_urlencoded::parse as pairs;
use utoipa::IntoParams;

use super::paging::{MAX_LIMIT, parse_limit};
use crate::policy::{SecretName, ValidationError};

/// The parameters, for the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is written down for readers")]
pub(super) struct SecretListParameters {
    /// The maximum number of secrets, 1 to 100. Default: 100.
    #[param(required = false, minimum = 1, maximum = 100)]
    limit: u32,
    /// The name to continue after: `X-Next-Token` of the previous response.
    #[param(required = false, rename = "nextToken", pattern = "^[a-z0-9_-]{0,128}$")]
    next_token: String,
}

/// Which secrets to list.
pub(super) struct SecretListQuery {
    /// The maximum number of secrets.
    pub limit: usize,
    /// The last secret on the previous page.
    pub after: Option<SecretName>,
}

impl SecretListQuery {
    /// Parses a query string. Ignores unknown parameters, and empty ones.
    ///
    /// # Errors
    /// A parameter is invalid; the error names it.
    pub(super) fn parse(text: &str) -> Result<Self, ValidationError> {
        let mut query = Self { limit: MAX_LIMIT, after: None };
        for (name, value) in pairs(text.as_bytes()).filter(|(_, value)| !value.is_empty()) {
            match &*name {
                "limit" => query.limit = parse_limit(&value)?,
                "nextToken" => query.after = Some(parse_token(&value)?),
                _ => {}
            }
        }
        Ok(query)
    }
}

fn parse_token(text: &str) -> Result<SecretName, ValidationError> {
    let problem = "send what X-Next-Token said, as it is";
    SecretName::parse(text).map_err(|_| ValidationError::about_entry("nextToken", text, problem))
}
