//! `POST /agent/v1/sandboxes/{id}/allow` and `…/deny`: change one list of a sandbox.

use axum::{
    Json,
    extract::{Path, State},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ApiState, Problem, json_body::JsonBody, time_query::parse_until};
use crate::policy::{EditableList, ListChange, ListEdit, ValidationError};

/// A change of one list.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct ListEditRequest {
    /// The entries to add or remove.
    pub entries: Vec<String>,
    /// Remove the entries.
    pub remove: bool,
    /// Only validate the change.
    #[serde(alias = "dry_run")]
    pub dry_run: bool,
    /// Remove the added entries again after this time, like `30m`, `1h` or `7d`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
}

/// What was changed, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EditedList {
    /// The list.
    list: EditableList,
    #[serde(flatten)]
    change: ListChange,
    /// When added entries end, RFC 3339. Absent: they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Whether the change was only validated.
    dry_run: bool,
}

/// Add entries to `allowOut` of a sandbox, or remove some
///
/// Entries that the floor denies are refused, since they would have no effect.
#[utoipa::path(
    post, path = "/agent/v1/sandboxes/{id}/allow", tag = "Agent", operation_id = "allow",
    request_body = ListEditRequest,
    responses(
        (status = 200, description = "It is enforced", body = EditedList),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub(super) async fn allow(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<EditedList>, Problem> {
    edit(api, id, EditableList::AllowOut, body).await
}

/// Add entries to `denyOut` of a sandbox, or remove some
///
/// Entries that `allowOut` allows are refused, since they would have no effect.
#[utoipa::path(
    post, path = "/agent/v1/sandboxes/{id}/deny", tag = "Agent", operation_id = "deny",
    request_body = ListEditRequest,
    responses(
        (status = 200, description = "It is enforced", body = EditedList),
        (status = 400, response = Problem), (status = 404, response = Problem),
        (status = 413, response = Problem),
    )
)]
pub(super) async fn deny(
    State(api): State<ApiState>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<EditedList>, Problem> {
    edit(api, id, EditableList::DenyOut, body).await
}

async fn edit(
    api: ApiState,
    id: String,
    list: EditableList,
    body: JsonBody,
) -> Result<Json<EditedList>, Problem> {
    let request: ListEditRequest = body.parse()?;
    let until = request.until()?;
    let ListEditRequest { entries, remove, dry_run, .. } = request;
    let edit = ListEdit { list, entries, remove, until };
    let change = api.agent.edit_list(id, edit, dry_run).await?;
    Ok(Json(EditedList { list, change, until, dry_run }))
}

impl ListEditRequest {
    /// When the entries end.
    fn until(&self) -> Result<Option<Timestamp>, ValidationError> {
        let Some(text) = &self.duration else { return Ok(None) };
        if self.remove {
            let problem = "removed entries do not end; leave it out";
            return Err(ValidationError::about_entry("for", text, problem));
        }
        parse_until("for", text).map(Some)
    }
}
