//! Pages of a list, as E2B's clients ask for them: `limit`, and `nextToken` from `X-Next-Token`.

use axum::http::HeaderMap;

use crate::{api::Problem, policy::ValidationError};

/// The largest page, which is also the default.
pub(super) const MAX_LIMIT: usize = 100;

/// Parses `limit`, the number of entries on a page.
///
/// # Errors
/// It is not a number from 1 to [`MAX_LIMIT`].
pub(super) fn parse_limit(text: &str) -> Result<usize, ValidationError> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| ValidationError::about_entry("limit", text, "write a number from 1 to 100"))
}

/// The headers of a page. `next_token` leads to the next one, if there is one.
pub(super) fn page_headers(next_token: Option<String>) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    if let Some(token) = next_token {
        headers.insert("x-next-token", token.try_into().map_err(Problem::internal)?);
    }
    Ok(headers)
}
