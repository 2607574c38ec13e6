//! Bounds and patterns of request fields, as the agent checks them; the Rust types do not carry
//! them. They are never tighter than the agent's own checks. Bounds that depend on the machine or
//! on several fields together cannot be part of a schema.

use serde_json::{Map, Value, json};

/// The fields that `PUT /sandboxes/{id}/network` rejects.
const INGRESS_FIELDS: [&str; 4] =
    ["allowPublicTraffic", "allowPublicFrom", "maskRequestHost", "httpsPorts"];

/// Adds the bounds to the document.
pub(super) fn add_bounds(document: &mut Value) {
    for (pointer, bounds) in bounds() {
        if let (Some(target), Value::Object(bounds)) = (object_at(document, pointer), bounds) {
            target.extend(bounds);
        }
    }
    add_derived_schemas(document);
}

/// The bounds by JSON pointer.
fn bounds() -> Vec<(&'static str, Value)> {
    let port = json!({ "minimum": 1, "maximum": 65535 });
    let not_empty = json!({ "minLength": 1 });
    vec![
        (
            "/components/schemas/SandboxSpec/properties/interface",
            json!({
                "minLength": 1, "maxLength": 15, "pattern": r"^[^/:\s]+$",
            }),
        ),
        ("/components/schemas/SandboxSpec/properties/netns", json!({ "pattern": "^/" })),
        (
            "/components/schemas/SandboxSpec/properties/addresses",
            json!({
                "minItems": 1, "maxItems": 8,
            }),
        ),
        (
            "/components/schemas/SandboxSpec/properties/addresses/items",
            json!({
                "pattern": r"^[0-9A-Fa-f:.]{2,45}$",
            }),
        ),
        (
            "/components/schemas/SandboxSpec/properties/mac",
            json!({
                "pattern": "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$",
            }),
        ),
        ("/components/schemas/NetworkConfig/properties/allowOut/items", not_empty.clone()),
        (
            "/components/schemas/NetworkConfig/properties/denyOut/items",
            json!({
                "pattern": r"^\s*[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?\s*$",
            }),
        ),
        (
            "/components/schemas/NetworkConfig/properties/dnsServers/items",
            json!({
                "pattern": r"^\s*[0-9A-Fa-f:.]{2,45}\s*$",
            }),
        ),
        ("/components/schemas/NetworkConfig/properties/allowPublicFrom", json!({ "minItems": 1 })),
        (
            "/components/schemas/NetworkConfig/properties/allowPublicFrom/items",
            json!({
                "pattern": r"^\s*[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?\s*$",
            }),
        ),
        ("/components/schemas/NetworkConfig/properties/maskRequestHost", not_empty.clone()),
        ("/components/schemas/NetworkConfig/properties/httpsPorts/items", port.clone()),
        (
            "/components/schemas/EgressProxy/properties/address",
            json!({ "pattern": ":[0-9]{1,5}$" }),
        ),
        (
            "/components/schemas/NewSecret/properties/name",
            json!({ "minLength": 1, "pattern": r"^\s*[A-Za-z0-9_-]{1,128}\s*$" }),
        ),
        ("/components/schemas/NewSecret/properties/value", json!({ "minLength": 1 })),
        ("/components/schemas/SecretUpdate/properties/value", json!({ "minLength": 1 })),
        ("/components/schemas/ProxyTls/oneOf/1", json!({ "additionalProperties": false })),
        (
            "/components/schemas/ProxyTls/oneOf/1/properties",
            json!({
                "enabled": { "type": "boolean" }, "caCert": { "type": ["string", "null"] },
            }),
        ),
        ("/components/schemas/ExplainRequest/properties/destination", not_empty),
        ("/components/schemas/ExplainRequest/properties/port", port),
        (
            "/components/schemas/ExplainRequest/properties/protocol",
            json!({
                "pattern": "^([Tt][Cc][Pp]|[Uu][Dd][Pp]|[Ss][Cc][Tt][Pp]|[Ii][Cc][Mm][Pp]([Vv]6)?|[0-9]+)$",
            }),
        ),
    ]
}

/// Adds the schemas that differ from another one in their required or accepted fields only.
fn add_derived_schemas(document: &mut Value) {
    let Some(schemas) = object_at(document, "/components/schemas") else { return };
    if let Some(mut update) = schemas.get("NetworkConfig").cloned() {
        if let Some(fields) = object_at(&mut update, "/properties") {
            fields.retain(|name, _| !INGRESS_FIELDS.contains(&name.as_str()));
        }
        update["description"] =
            "The egress fields of `network`: those that can be replaced.".into();
        schemas.insert("NetworkUpdate".to_owned(), update);
    }
    if let Some(mut body) = schemas.get("SandboxSpec").cloned() {
        if let Some(required) = body.pointer_mut("/required").and_then(Value::as_array_mut) {
            required.retain(|name| name != "sandboxID");
        }
        body["description"] = "One sandbox, of which the path says the ID.".into();
        schemas.insert("NamedSandbox".to_owned(), body);
    }
}

fn object_at<'a>(document: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    document.pointer_mut(pointer).and_then(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_has_its_place_in_the_document() {
        let (_, document) = crate::api::routes().split_for_parts();
        let document = serde_json::to_value(document).expect("JSON");
        for (pointer, _) in bounds() {
            assert!(document.pointer(pointer).is_some_and(Value::is_object), "{pointer}");
        }
    }
}
