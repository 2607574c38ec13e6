//! `/secrets`: what headers of `network.rules` refer to. No answer holds a value.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

use super::{
    paging::page_headers,
    secret_list_query::{SecretListParameters, SecretListQuery},
};
use crate::{
    api::{ApiState, Problem, json_body::JsonBody},
    secrets::{SecretError, SecretInfo, SecretMetadata, SecretSource, SecretStore, SubmittedValue},
};

/// A secret to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = NewSecret)]
pub(super) struct E2bNewSecret {
    /// Letters, digits, `_` and `-`; not beginning with `sec_`. Case and spaces around it do not
    /// count.
    name: String,
    /// Up to 64 KiB. Never returned.
    #[schema(value_type = String, write_only)]
    value: SubmittedValue,
    /// Returned unchanged.
    #[serde(default)]
    metadata: Option<SecretMetadata>,
}

/// A new value of a secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = SecretUpdate)]
pub(super) struct E2bSecretUpdate {
    /// Up to 64 KiB. Never returned.
    #[schema(value_type = String, write_only)]
    value: SubmittedValue,
    /// Replaces the metadata. Absent: it stays.
    #[serde(default)]
    metadata: Option<SecretMetadata>,
}

/// A secret without its value.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Secret)]
pub(super) struct E2bSecret {
    #[serde(rename = "secretID")]
    secret_id: String,
    name: String,
    /// 1 for a new secret, and one more for each new value.
    current_version: u64,
    metadata: SecretMetadata,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// `api`, `file` or `directory`. Those of the agent's `[secrets]` cannot be changed here.
    #[schema(value_type = String)]
    source: SecretSource,
}

impl From<SecretInfo> for E2bSecret {
    fn from(info: SecretInfo) -> Self {
        Self {
            secret_id: info.id,
            name: info.name.to_string(),
            current_version: info.version,
            metadata: info.metadata,
            created_at: info.created_at,
            updated_at: info.updated_at,
            source: info.source,
        }
    }
}

impl From<SecretError> for Problem {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Invalid(invalid) => invalid.into(),
            SecretError::Unknown(_) => Self::not_found(error.to_string()),
            SecretError::Exists(_) | SecretError::FromOperator { .. } => {
                Self::from_status(StatusCode::CONFLICT, error.to_string())
            }
            SecretError::TooMany(message) => Self::bad_request(message),
            SecretError::Storage(cause) => Self::internal(cause),
        }
    }
}

/// List secrets
///
/// In the order of their names.
#[utoipa::path(
    get, path = "/secrets", tag = "E2B", operation_id = "list_secrets", params(SecretListParameters),
    responses(
        (status = 200, description = "Those of this page", body = Vec<E2bSecret>, headers(
            ("X-Next-Token" = Option<String>, description = "nextToken of the next page, if any"),
        )),
        (status = 400, response = Problem),
    )
)]
pub(super) async fn list(State(api): State<ApiState>, RawQuery(query): RawQuery) -> Response {
    uncached(list_page(&api.secrets, query.as_deref().unwrap_or_default()))
}

fn list_page(
    secrets: &SecretStore,
    query: &str,
) -> Result<(HeaderMap, Json<Vec<E2bSecret>>), Problem> {
    let query = SecretListQuery::parse(query)?;
    let mut page = secrets.list();
    page.retain(|secret| query.after.as_ref().is_none_or(|after| secret.name > *after));
    let has_more = page.len() > query.limit;
    page.truncate(query.limit);
    let last = page.last().filter(|_| has_more).map(|last| last.name.to_string());
    Ok((page_headers(last)?, Json(page.into_iter().map(E2bSecret::from).collect())))
}

/// Create a secret
#[utoipa::path(
    post, path = "/secrets", tag = "E2B", operation_id = "create_secret",
    request_body = E2bNewSecret,
    responses(
        (status = 201, description = "It is stored, and requests can use it", body = E2bSecret),
        (status = 400, response = Problem), (status = 409, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub(super) async fn create(State(api): State<ApiState>, body: JsonBody) -> Response {
    let create = |E2bNewSecret { name, value, metadata }| {
        change(&api, move |secrets: &SecretStore| {
            secrets.create(&name, &value.0, metadata.unwrap_or_default())
        })
    };
    let created = match body.parse() {
        Ok(secret) => create(secret).await,
        Err(problem) => Err(problem),
    };
    uncached(created.map(|info| (StatusCode::CREATED, Json(E2bSecret::from(info)))))
}

/// Show a secret by ID or name, without its value
#[utoipa::path(
    get, path = "/secrets/{id}", tag = "E2B", operation_id = "show_secret",
    responses(
        (status = 200, description = "The secret, without its value", body = E2bSecret),
        (status = 404, response = Problem),
    )
)]
pub(super) async fn show(State(api): State<ApiState>, Path(id): Path<String>) -> Response {
    uncached(api.secrets.get(&id).map(|info| Json(E2bSecret::from(info))).map_err(Problem::from))
}

/// Give a secret, by ID or name, a new value
///
/// It holds from the next request of a sandbox on.
#[utoipa::path(
    post, path = "/secrets/{id}", tag = "E2B", operation_id = "update_secret",
    request_body = E2bSecretUpdate,
    responses(
        (status = 200, description = "The new value is stored and in force", body = E2bSecret),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 409, response = Problem), (status = 413, response = Problem),
    )
)]
pub(super) async fn update(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Response {
    let update = |E2bSecretUpdate { value, metadata }| {
        change(&api, move |secrets: &SecretStore| secrets.update(&id, &value.0, metadata))
    };
    let updated = match body.parse() {
        Ok(secret) => update(secret).await,
        Err(problem) => Err(problem),
    };
    uncached(updated.map(|info| Json(E2bSecret::from(info))))
}

/// Delete a secret by ID or name
///
/// Requests that need it are refused from then on.
#[utoipa::path(
    delete, path = "/secrets/{id}", tag = "E2B", operation_id = "delete_secret",
    responses(
        (status = 204, description = "It is no more"),
        (status = 404, response = Problem), (status = 409, response = Problem),
    )
)]
pub(super) async fn delete(State(api): State<ApiState>, Path(id): Path<String>) -> Response {
    let deleted = change(&api, move |secrets: &SecretStore| secrets.delete(&id)).await;
    uncached(deleted.map(|()| StatusCode::NO_CONTENT))
}

/// Makes a change, which waits for the disk.
async fn change<T: Send + 'static>(
    api: &ApiState,
    make: impl FnOnce(&SecretStore) -> Result<T, SecretError> + Send + 'static,
) -> Result<T, Problem> {
    let secrets = api.secrets.clone();
    let changed = spawn_blocking(move || make(&secrets)).await.map_err(Problem::internal)?;
    Ok(changed?)
}

/// No cache may keep an answer about secrets.
fn uncached(answer: Result<impl IntoResponse, Problem>) -> Response {
    let mut response = answer.into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::SecretValue;

    #[test]
    fn pages_follow_one_another_by_name() {
        let secrets = SecretStore::default();
        for name in ["c", "a", "b"] {
            let value = SecretValue::new(b"v".to_vec());
            secrets.create(name, &value, SecretMetadata::new()).expect("created");
        }
        let page = |query: &str| {
            let (headers, Json(page)) = list_page(&secrets, query).expect("a page");
            let names: Vec<_> = page.iter().map(|secret| secret.name.clone()).collect();
            let next = headers.get("x-next-token").map(|it| it.to_str().expect("text").to_owned());
            (names.join(""), next)
        };
        assert_eq!(page(""), ("abc".to_owned(), None));
        assert_eq!(page("limit=2"), ("ab".to_owned(), Some("b".to_owned())));
        assert_eq!(page("limit=2&nextToken=b"), ("c".to_owned(), None));
        for bad in ["limit=0", "limit=101", "limit=x", "nextToken=a%20b"] {
            assert!(list_page(&secrets, bad).is_err(), "{bad}");
        }
    }
}
