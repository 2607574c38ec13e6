//! The OpenAPI document matches the API: both have the same operations, and responses conform to
//! the document.

use std::{collections::BTreeSet, fs::File, io::Write as _, sync::Arc};

use jsonschema::Validator;
use policy_testbed::{
    agent::ApiResponse,
    testbed::{OrFail as _, SharedTestbed, Testbed},
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

const HTTP_METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The operations that the API must have.
const DOCUMENTED_OPERATIONS: [(&str, &str); 36] = [
    ("get", "/health"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("post", "/sandboxes"),
    ("get", "/sandboxes"),
    ("post", "/v2/sandboxes"),
    ("get", "/v2/sandboxes"),
    ("get", "/sandboxes/{id}"),
    ("delete", "/sandboxes/{id}"),
    ("put", "/sandboxes/{id}/network"),
    ("post", "/sandboxes/{id}/connect"),
    ("post", "/v2/sandboxes/{id}/connect"),
    ("post", "/sandboxes/{id}/timeout"),
    ("get", "/secrets"),
    ("post", "/secrets"),
    ("get", "/secrets/{id}"),
    ("post", "/secrets/{id}"),
    ("delete", "/secrets/{id}"),
    ("get", "/agent/v1/sandboxes"),
    ("put", "/agent/v1/sandboxes"),
    ("get", "/agent/v1/sandboxes/{id}"),
    ("put", "/agent/v1/sandboxes/{id}"),
    ("delete", "/agent/v1/sandboxes/{id}"),
    ("get", "/agent/v1/sandboxes/{id}/url"),
    ("get", "/agent/v1/sandboxes/{id}/token"),
    ("post", "/agent/v1/sandboxes/{id}/token"),
    ("delete", "/agent/v1/sandboxes/{id}/token"),
    ("post", "/agent/v1/explain"),
    ("get", "/agent/v1/events"),
    ("get", "/agent/v1/denials"),
    ("get", "/agent/v1/flows"),
    ("get", "/agent/v1/sandboxes/{id}/denials"),
    ("get", "/agent/v1/sandboxes/{id}/suggestion"),
    ("post", "/agent/v1/sandboxes/{id}/allow"),
    ("post", "/agent/v1/sandboxes/{id}/deny"),
    ("get", "/agent/v1/sandboxes/{id}/flows"),
];

/// The document, and a testbed whose responses must conform to it.
struct OpenApiDocument {
    testbed: Arc<Testbed>,
    json: Value,
}

impl OpenApiDocument {
    fn fetch(stage: Arc<Testbed>) -> Self {
        let answer = stage.request("GET", "/openapi.json", &Value::Null);
        assert_eq!(answer.status, 200, "{}", answer.body);
        Self { testbed: stage, json: answer.json() }
    }

    fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.json["paths"].as_object().or_fail("paths");
        let of_path = |(path, item): (&String, &Value)| {
            let known = HTTP_METHODS.into_iter().filter(|method| item.get(method).is_some());
            known.map(|method| (method.to_owned(), path.clone())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }

    /// The documented response of an operation with a status. Panics if there is none.
    #[track_caller]
    fn documented_response(&self, method: &str, path: &str, code: u16) -> &Value {
        let response = &self.json["paths"][path][method]["responses"][code.to_string()];
        assert!(response.is_object(), "{method} {path} answers {code}, which is not documented");
        match response["$ref"].as_str() {
            Some(reference) => self.json.pointer(&reference[1..]).or_fail(reference),
            None => response,
        }
    }

    /// Asserts that a response conforms to the document.
    #[track_caller]
    fn assert_documented(&self, method: &str, path: &str, answer: &ApiResponse) {
        let schema = &self.documented_response(method, path, answer.status)["content"]["application/json"]
            ["schema"];
        if schema.is_null() {
            return;
        }
        let errors: Vec<String> = self
            .schema_validator(schema)
            .iter_errors(&answer.json())
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        let body = &answer.body;
        assert!(errors.is_empty(), "{method} {path} {}: {errors:#?} in {body}", answer.status);
    }

    fn schema_validator(&self, schema: &Value) -> Validator {
        let mut whole = schema.clone();
        whole["components"] = self.json["components"].clone();
        jsonschema::validator_for(&whole).or_fail("the schema")
    }

    /// Sends a request and checks the response against the document.
    #[track_caller]
    fn request_and_check(&self, method: &str, path: &str, id: &str, body: &Value) -> ApiResponse {
        let answer = self.testbed.request(&method.to_uppercase(), &path.replace("{id}", id), body);
        self.assert_documented(method, path, &answer);
        answer
    }
}

#[test]
fn what_is_documented_is_there() {
    let document = OpenApiDocument::fetch(TESTBED.testbed());
    for (method, path) in document.operations() {
        let body = if matches!(method.as_str(), "put" | "post") { json!({}) } else { Value::Null };
        let answer = document.request_and_check(&method, &path, "nosuch", &body);
        let nothing = answer.status == 405 || answer.body.contains("there is nothing at");
        assert!(!nothing, "{method} {path}: {} {}", answer.status, answer.body);
    }
}

#[test]
fn what_is_there_is_documented() {
    let document = OpenApiDocument::fetch(TESTBED.testbed());
    let operations = document.operations();
    for (method, path) in DOCUMENTED_OPERATIONS {
        assert!(operations.contains(&(method.to_owned(), path.to_owned())), "{method} {path}");
    }
    let paths: BTreeSet<&String> = operations.iter().map(|(_, path)| path).collect();
    for path in paths {
        for method in HTTP_METHODS {
            if operations.contains(&(method.to_owned(), path.clone())) {
                continue;
            }
            let method = method.to_uppercase();
            let answer =
                document.testbed.request(&method, &path.replace("{id}", "nosuch"), &Value::Null);
            assert_eq!(answer.status, 405, "{method} {path} is not documented: {}", answer.body);
        }
    }
}

#[test]
fn every_operation_says_what_a_wrong_key_and_a_failure_get() {
    let document = OpenApiDocument::fetch(TESTBED.testbed());
    for (method, path) in document.operations() {
        document.documented_response(&method, &path, 500);
        let operation = &document.json["paths"][&path][&method];
        let guarded = path != "/health";
        assert_eq!(operation["responses"].get("401").is_some(), guarded, "{method} {path}");
        assert_eq!(operation.get("security").is_some(), guarded, "{method} {path}");
        let names = operation["parameters"].as_array().cloned().unwrap_or_default();
        let has_id = names.iter().any(|it| it["name"] == "id" && it["in"] == "path");
        assert_eq!(has_id, path.contains("{id}"), "{method} {path}");
    }
}

#[test]
fn real_answers_are_as_documented() {
    let stage = Testbed::without_agent(
        "[gateway]\ndomain = \"sandbox.example.com\"\nhttps = \"127.0.0.1:8443\"",
    );
    let (guest, other) = (stage.add_sandbox(), stage.add_sandbox());
    let mut file =
        File::options().append(true).open(stage.agent().config_path()).or_fail("opening");
    let slot = (&guest.interface, json!(guest.addresses()));
    writeln!(file, "[[interfaces]]\ninterface = \"{}\"\naddresses = {}", slot.0, slot.1)
        .or_fail("writing");
    stage.restart_agent();
    let document = OpenApiDocument::fetch(stage);
    let network = json!({
        "allowOut": ["example.com", "1.1.1.1"], "denyOut": ["0.0.0.0/0"], "dnsServers": [],
        "allowPublicTraffic": false, "maskRequestHost": "localhost:${PORT}", "httpsPorts": [8443],
        "allowPublicFrom": ["192.0.2.0/24"],
        "rules": {
            "example.com": [{ "transform": { "headers": { "X-Key": "${e2b.secrets.key}" } } }],
            "*.example.net": [{}],
        },
        "egressProxy": { "address": "203.0.113.5:1080", "username": "u", "password": "p",
            "tls": { "enabled": true, "serverName": "n.example" } },
    });
    let body = json!({ "templateID": "base", "metadata": { "a": "b" }, "network": network });
    let made = document.request_and_check("post", "/v2/sandboxes", "", &body);
    assert_eq!(made.status, 201, "{}", made.body);
    let full = document.request_and_check("post", "/v2/sandboxes", "", &body);
    assert_eq!(full.status, 503, "{}", full.body);
    let made = made.json();
    let id = made["sandboxID"].as_str().or_fail("an ID");
    for path in [
        "/sandboxes",
        "/v2/sandboxes",
        "/sandboxes/{id}",
        "/agent/v1/sandboxes",
        "/agent/v1/sandboxes/{id}",
        "/agent/v1/sandboxes/{id}/token",
        "/health",
        "/openapi.json",
    ] {
        assert_eq!(document.request_and_check("get", path, id, &Value::Null).status, 200, "{path}");
    }
    let issued = json!({ "expiresIn": 60 });
    let issued = document.request_and_check("post", "/agent/v1/sandboxes/{id}/token", id, &issued);
    assert_eq!(issued.status, 201, "{}", issued.body);
    let own_tokens = "/agent/v1/sandboxes/{id}/token";
    let revoked = document.request_and_check("delete", own_tokens, id, &Value::Null);
    assert_eq!(revoked.status, 204, "{}", revoked.body);
    let wrong = json!({ "denyOut": ["nonsense/"] });
    assert_eq!(
        document.request_and_check("put", "/sandboxes/{id}/network", id, &wrong).status,
        400
    );
    let question = json!({ "sandboxID": id, "destination": "8.8.8.8", "port": 443 });
    assert_eq!(document.request_and_check("post", "/agent/v1/explain", "", &question).status, 200);
    let question = json!({ "sandboxID": id, "destination": "203.0.113.9" });
    let explained = document.request_and_check("post", "/agent/v1/explain", "", &question);
    assert!(explained.json()["byPort"].is_array(), "{}", explained.body);
    let question = json!({ "sandboxID": id, "destination": "https://example.com" });
    let explained = document.request_and_check("post", "/agent/v1/explain", "", &question);
    assert_eq!(explained.json()["headerRule"]["key"], "example.com", "{}", explained.body);
    for (method, path, body, status) in [
        ("post", "/secrets", json!({ "name": "key", "value": "v", "metadata": { "a": "b" } }), 201),
        ("post", "/secrets", json!({ "name": "key", "value": "v" }), 409),
        ("post", "/secrets/{id}", json!({ "value": "w" }), 200),
        ("get", "/secrets/{id}", Value::Null, 200),
        ("get", "/secrets", Value::Null, 200),
        ("delete", "/secrets/{id}", Value::Null, 204),
        ("delete", "/secrets/{id}", Value::Null, 404),
    ] {
        let answer = document.request_and_check(method, path, "key", &body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    }
    let warned = other.sandbox_spec(&json!({ "network": { "allowOut": ["1.1.1.1"] } }));
    let warned = document.request_and_check("put", "/agent/v1/sandboxes/{id}", &other.id, &warned);
    assert!(warned.json()["warnings"].is_array(), "{}", warned.body);
    assert_eq!(
        document.request_and_check("post", "/sandboxes/{id}/connect", id, &json!({})).status,
        200
    );
    assert_eq!(
        document.request_and_check("delete", "/sandboxes/{id}", id, &Value::Null).status,
        204
    );
    let applied = other.sandbox_spec(&json!({ "network": network }));
    let applied =
        document.request_and_check("put", "/agent/v1/sandboxes/{id}", &other.id, &applied);
    assert_eq!(applied.status, 200, "{}", applied.body);
}

/// The requests of these tests conform to the document, and it rejects what the agent rejects.
#[test]
fn requests_are_as_documented() {
    let document = OpenApiDocument::fetch(TESTBED.testbed());
    let schema = |name: &str| {
        document.schema_validator(&json!({ "$ref": format!("#/components/schemas/{name}") }))
    };
    let network = schema("NetworkConfig");
    let proxy = json!({ "address": "p.example:1080", "username": "u", "password": "p" });
    let good = json!({ "allowOut": ["1.1.1.1"], "httpsPorts": [443], "egressProxy": proxy });
    assert!(network.is_valid(&good) && network.is_valid(&json!({})));
    let rules = |rule: Value| json!({ "rules": { "a.example": rule } });
    let headers = json!([{ "transform": { "headers": { "X-Key": "v" } } }]);
    assert!(network.is_valid(&rules(headers)) && network.is_valid(&rules(json!([{}]))));
    for bad in [
        json!({ "denyout": [] }),
        json!({ "denyOut": "1.1.1.1" }),
        json!([]),
        json!({ "allowPublicFrom": [] }),
        rules(json!({})),
        rules(json!([{ "transforms": {} }])),
        rules(json!([{ "transform": { "headers": { "X-Key": 1 } } }])),
    ] {
        assert!(!network.is_valid(&bad), "{bad}");
    }
    let secret = schema("NewSecret");
    assert!(secret.is_valid(&json!({ "name": " My-Key ", "value": "v" })));
    for bad in [json!({ "name": "a" }), json!({ "name": "a b", "value": "v" })] {
        assert!(!secret.is_valid(&bad), "{bad}");
    }
    let new = schema("NewSandbox");
    assert!(new.is_valid(&json!({ "templateID": "base", "network": good, "envVars": {} })));
    for bad in [json!({}), json!({ "templateID": "base", "timeout": 0 })] {
        assert!(!new.is_valid(&bad), "{bad}");
    }
}
