//! `GET /openapi.json`: the OpenAPI document. The routes describe their own parameters and
//! responses; this module adds what they share.

mod bounds;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension,
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, Ref, RefOr, Schema,
        path::Operation,
        schema::{ObjectBuilder, Type},
        security::{
            ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
        },
    },
};

use super::Problem;

/// The name of the `X-API-Key` security scheme.
const KEY_SCHEME: &str = "key";
/// The name of the `Authorization: Bearer` security scheme.
const BEARER_SCHEME: &str = "bearer";

/// The description of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "policy-agent",
        description = "Decides what sandboxes may reach on the network. Over TCP every path but \
                       /health needs a key; over the Unix socket none does."
    ),
    components(responses(Problem)),
    tags(
        (name = "E2B", description = "What E2B's clients speak"),
        (name = "Agent", description = "The agent's own part"),
    ),
)]
pub(super) struct ApiDocument;

/// The rendered OpenAPI document.
#[derive(Clone)]
pub(super) struct OpenApiText(Bytes);

impl OpenApiText {
    /// Adds the shared parts to the document that the routes generate, and renders it.
    pub(super) fn render(mut document: openapi::OpenApi) -> Self {
        SharedParts.modify(&mut document);
        // Serialization cannot fail: the document has a JSON form.
        let mut document = serde_json::to_value(&document).unwrap_or_default();
        bounds::add_bounds(&mut document);
        Self(document.to_string().into())
    }
}

/// Show this OpenAPI document
#[utoipa::path(
    get, path = "/openapi.json", tag = "Agent", operation_id = "document",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
)]
pub(super) async fn show(Extension(text): Extension<Arc<OpenApiText>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.0.clone()).into_response()
}

/// Adds what all paths have in common.
struct SharedParts;

impl Modify for SharedParts {
    fn modify(&self, document: &mut openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                complete_operation(path, operation);
            }
        }
        let Some(components) = &mut document.components else { return };
        let key = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        components
            .security_schemes
            .insert(KEY_SCHEME.to_owned(), SecurityScheme::ApiKey(key).into());
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.security_schemes.insert(BEARER_SCHEME.to_owned(), bearer.into());
        let all = components.schemas.clone();
        components.schemas.values_mut().for_each(|schema| allow_sibling_fields(schema, &all));
        if let Some(RefOr::T(Schema::Object(proxy))) = components.schemas.get_mut("EgressProxy") {
            // The type is only deserialized, so the derived schema lacks the write-only password.
            let password = ObjectBuilder::new().schema_type(Type::String).write_only(true);
            proxy.properties.insert("password".to_owned(), password.build().into());
        }
    }
}

/// Removes `additionalProperties: false` from a schema that another one extends: it would forbid
/// the fields of the extending schema.
fn allow_sibling_fields(schema: &mut RefOr<Schema>, all: &BTreeMap<String, RefOr<Schema>>) {
    let RefOr::T(Schema::AllOf(parts)) = schema else { return };
    for part in &mut parts.items {
        let RefOr::Ref(reference) = part else { continue };
        let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
        if let Some(RefOr::T(Schema::Object(extended))) = all.get(name) {
            let mut extended = extended.clone();
            extended.additional_properties = None;
            *part = Schema::Object(extended).into();
        }
    }
}

/// Adds the security schemes and the responses for a missing key, a key whose role does not suffice,
/// and an internal error.
fn complete_operation(path: &str, operation: &mut Operation) {
    let mut add = |status: &str| {
        let problem = Ref::from_response_name("Problem");
        operation.responses.responses.insert(status.to_owned(), problem.into());
    };
    add("500");
    if path != "/health" {
        add("401");
        add("403");
        operation.security = Some(
            [KEY_SCHEME, BEARER_SCHEME].map(|name| SecurityRequirement::new(name, [""; 0])).into(),
        );
    }
}
