//! The part of the API that E2B's clients use.

use std::{collections::BTreeSet, fs::File, io::Write as _, sync::Arc};

use policy_testbed::{
    agent::ApiResponse,
    probe::ProbeResult,
    test_servers,
    testbed::{OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

const API_CONFIG: &str = r#"
[api]
listen = "127.0.0.1:3000"
api_keys = ["e2b_0123"]
[gateway]
domain = "sandbox.example.com"
https = "127.0.0.1:8443"
"#;
const CONFIG_WITHOUT_GATEWAY: &str = "";

/// A testbed with E2B's API. Every test counts free interfaces, so none is shared.
struct E2bTestbed {
    sandboxes: Vec<TestSandbox>,
    testbed: Arc<Testbed>,
}

impl E2bTestbed {
    /// Starts an agent with `slots` pooled interfaces.
    fn with_config(config: &str, slots: usize) -> Self {
        let stage = Testbed::without_agent(config);
        let guests: Vec<TestSandbox> = (0..slots).map(|_| stage.add_sandbox()).collect();
        let file = File::options().append(true).open(stage.agent().config_path());
        let mut file = file.or_fail("opening the configuration");
        for guest in &guests {
            let (interface, addresses) = (&guest.interface, json!(guest.addresses()));
            writeln!(file, "[[interfaces]]\ninterface = \"{interface}\"\naddresses = {addresses}")
                .or_fail("writing the configuration");
        }
        stage.restart_agent();
        Self { sandboxes: guests, testbed: stage }
    }

    fn new(slots: usize) -> Self {
        Self::with_config(API_CONFIG, slots)
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> ApiResponse {
        self.testbed.request(method, path, body)
    }

    fn get_ok(&self, path: &str) -> ApiResponse {
        self.request("GET", path, &Value::Null)
    }

    fn create_sandbox(&self, body: &Value) -> Value {
        let answer = self.request("POST", "/v2/sandboxes", body);
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()
    }

    fn assert_refuses(&self, path: &str, body: &Value, code: u16, words: &str) {
        let answer = self.request("POST", path, body);
        let error = answer.json();
        assert_eq!(
            (answer.status, &error["code"]),
            (code, &json!(code)),
            "{body}: {}",
            answer.body
        );
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{words:?} is not in {message:?}");
    }

    fn sandbox_ids(&self, path: &str) -> Vec<String> {
        let answer = self.get_ok(path);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let list = answer.json();
        let list = list.as_array().or_fail("a list");
        list.iter().map(sandbox_id).collect()
    }

    /// The guest behind the interface of a sandbox.
    fn sandbox_of(&self, sandbox: &Value) -> &TestSandbox {
        let own = self.get_ok(&format!("/agent/v1/sandboxes/{}", sandbox_id(sandbox))).json();
        let guest =
            self.sandboxes.iter().find(|guest| own["interface"] == guest.interface.as_str());
        guest.or_fail("the sandbox's interface")
    }

    /// Sends a request over TCP with these arguments, such as the key.
    fn request_over_tcp(&self, arguments: &[&str], path: &str) -> (String, Value) {
        let mut curl = self.testbed.network.host.command("curl").or_fail("entering the host");
        curl.args(["-s", "-w", "\n%{http_code}", "--max-time", "10"]).args(arguments);
        let output = curl.arg(format!("http://127.0.0.1:3000{path}")).output().or_fail("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').or_fail("a status");
        (code.to_owned(), serde_json::from_str(body).unwrap_or_default())
    }
}

fn sandbox_id(sandbox: &Value) -> String {
    sandbox["sandboxID"].as_str().or_fail("a sandboxID").to_owned()
}

fn sandbox_path(sandbox: &Value, rest: &str) -> String {
    format!("/sandboxes/{}{rest}", sandbox_id(sandbox))
}

/// A time in a response, in seconds since the Unix epoch.
fn unix_seconds(value: &Value) -> i64 {
    let time = value.as_str().or_fail("a time").parse::<jiff::Timestamp>();
    time.or_fail("a time, RFC 3339").as_second()
}

fn minimal_body() -> Value {
    json!({ "templateID": "base" })
}

#[test]
fn a_sandbox_from_creation_to_its_end() {
    let platform = E2bTestbed::new(1);
    let made = platform.create_sandbox(&json!({
        "templateID": "base", "timeout": 60, "metadata": { "user": "me" },
        "envVars": { "A": "b" }, "allow_internet_access": false,
        "network": { "allowOut": ["8.8.8.8"] },
    }));
    assert_eq!(made["templateID"], "base");
    assert_eq!(made["domain"], "sandbox.example.com");
    for field in ["clientID", "envdVersion", "trafficAccessToken", "envdAccessToken"] {
        assert!(made[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {made}");
    }
    let guest = platform.sandbox_of(&made);
    guest.assert_reaches("8.8.8.8");
    assert_eq!(guest.probe_tcp("1.1.1.1", test_servers::ECHO_PORT), ProbeResult::Refused);

    let shown = platform.get_ok(&sandbox_path(&made, "")).json();
    assert_eq!((sandbox_id(&shown), &shown["state"]), (sandbox_id(&made), &json!("running")));
    assert_eq!(shown["network"], json!({ "allowOut": ["8.8.8.8"] }));
    assert_eq!(
        (&shown["allowInternetAccess"], &shown["metadata"]),
        (&json!(false), &json!({ "user": "me" }))
    );
    let life = unix_seconds(&shown["endAt"]) - unix_seconds(&shown["startedAt"]);
    assert!((59..=60).contains(&life), "{life} seconds");
    assert_eq!(platform.sandbox_ids("/v2/sandboxes"), [sandbox_id(&made)]);
    assert_eq!(platform.sandbox_ids("/sandboxes"), [sandbox_id(&made)]);

    let update = json!({ "denyOut": ["8.8.8.8"] });
    assert_eq!(platform.request("PUT", &sandbox_path(&made, "/network"), &update).status, 204);
    guest.assert_reaches("1.1.1.1");
    guest.assert_refused("8.8.8.8");
    let shown = platform.get_ok(&sandbox_path(&made, "")).json();
    assert_eq!((&shown["network"], shown.get("allowInternetAccess")), (&update, None));

    for connect in ["", "/v2"] {
        let connect = format!("{connect}{}", sandbox_path(&made, "/connect"));
        let connected = platform.request("POST", &connect, &json!({ "timeout": 30 }));
        assert_eq!((connected.status, connected.json()), (200, made.clone()), "{connect}");
    }
    let gone = platform.request("DELETE", &sandbox_path(&made, ""), &Value::Null);
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    for (method, rest) in
        [("DELETE", ""), ("GET", ""), ("POST", "/connect"), ("POST", "/refreshes")]
    {
        let body = if method == "POST" { json!({}) } else { Value::Null };
        assert_eq!(
            platform.request(method, &sandbox_path(&made, rest), &body).status,
            404,
            "{method} {rest}"
        );
    }
    assert!(platform.sandbox_ids("/v2/sandboxes").is_empty());
}

#[test]
fn interfaces_are_allocated_while_any_are_free() {
    let platform = E2bTestbed::new(2);
    let (one, other) =
        (platform.create_sandbox(&minimal_body()), platform.create_sandbox(&minimal_body()));
    assert_ne!(platform.sandbox_of(&one).interface, platform.sandbox_of(&other).interface);
    platform.assert_refuses("/v2/sandboxes", &minimal_body(), 503, "interfaces");
    assert_eq!(platform.request("DELETE", &sandbox_path(&one, ""), &Value::Null).status, 204);
    platform.create_sandbox(&minimal_body());
}

#[test]
fn what_is_wrong_is_refused_and_named() {
    let platform = E2bTestbed::new(1);
    let with = |field: &str, value: Value| {
        let mut body = minimal_body();
        body[field] = value;
        body
    };
    for (body, words) in [
        (json!({}), "templateID"),
        (with("timeout", json!(0)), "timeout"),
        (with("timeout", json!(-5)), "timeout"),
        (with("timeout", json!(1.5)), "timeout"),
        (with("timeout", json!(99_999_999)), "2592000"),
        (with("metadata", json!({ "a": 1 })), "metadata.a"),
        (with("network", json!({ "denyout": [] })), "network.denyout"),
        (with("network", json!({ "denyOut": ["example.com"] })), "denyOut[0]"),
        (with("network", json!({ "egressProxy": { "address": "10.0.0.1:1080" } })), "egressProxy"),
        (with("denyOut", json!(["0.0.0.0/0"])), "denyOut"),
        (with("allow_internet_acces", json!(false)), "allow_internet_acces"),
    ] {
        for path in ["/v2/sandboxes", "/sandboxes"] {
            platform.assert_refuses(path, &body, 400, words);
        }
    }
    for query in ["limit=0", "limit=x", "state=gone", "order=up", "nextToken=x", "startedAfter=x"] {
        let answer = platform.get_ok(&format!("/v2/sandboxes?{query}"));
        let field = query.split('=').next().unwrap_or_default();
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(field), "{query}: {}", answer.body);
    }
    platform.create_sandbox(&minimal_body()); // no refused request holds the interface
}

#[test]
fn only_a_secure_sandbox_can_be_private() {
    let platform = E2bTestbed::new(1);
    let mut private = json!({ "templateID": "base", "network": { "allowPublicTraffic": false } });
    platform.assert_refuses("/sandboxes", &private, 400, "secure");
    private["secure"] = json!(true);
    let made = platform.request("POST", "/sandboxes", &private);
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(made.json()["trafficAccessToken"].is_string());
    assert_eq!(
        platform.request("DELETE", &sandbox_path(&made.json(), ""), &Value::Null).status,
        204
    );

    let open = platform.request("POST", "/sandboxes", &minimal_body());
    assert_eq!(open.status, 201, "{}", open.body);
    assert_eq!(open.json().get("trafficAccessToken"), None);
    assert_eq!(open.json().get("envdAccessToken"), None);
}

#[test]
fn a_key_is_needed_over_tcp() {
    let platform = E2bTestbed::new(1);
    for wrong in ["X-API-Key: e2b_012", "X-API-Key;", "Authorization: Bearer e2b_012"] {
        for path in ["/v2/sandboxes", "/sandboxes/nosuch", "/openapi.json"] {
            let (code, error) = platform.request_over_tcp(&["-H", wrong], path);
            assert_eq!((code.as_str(), &error["code"]), ("401", &json!(401)), "{wrong} {path}");
        }
    }
    let (code, _) =
        platform.request_over_tcp(&["-H", "Authorization: Bearer e2b_0123"], "/v2/sandboxes");
    assert_eq!(code, "200");
    let key = ["-H", "X-API-Key: e2b_0123", "-H", "Transfer-Encoding: chunked"];
    let body = json!({ "templateID": "base" }).to_string();
    let arguments = [key.as_slice(), &["-d", body.as_str()]].concat();
    let (code, made) = platform.request_over_tcp(&arguments, "/v2/sandboxes");
    assert_eq!(code, "201", "a chunked body: {made}");
    let (code, shown) = platform.request_over_tcp(&key[..2], &sandbox_path(&made, ""));
    assert_eq!((code.as_str(), sandbox_id(&shown)), ("200", sandbox_id(&made)));
}

#[test]
fn a_lease_ends_unless_it_is_renewed() {
    let platform = E2bTestbed::new(2);
    let short = platform.create_sandbox(&json!({ "templateID": "base", "timeout": 1 }));
    let renewed = platform.create_sandbox(&json!({ "templateID": "base", "timeout": 10 }));
    let connect =
        platform.request("POST", &format!("/v2{}", sandbox_path(&renewed, "/connect")), &json!({}));
    assert_eq!(connect.status, 200, "{}", connect.body);
    let ended = || (platform.get_ok(&sandbox_path(&short, "")).status == 404).then_some(());
    eventually("the lease ends", ended).or_fail("waiting");
    let left = |sandbox: &Value| {
        let shown = platform.get_ok(&sandbox_path(sandbox, "")).json();
        unix_seconds(&shown["endAt"]) - jiff::Timestamp::now().as_second()
    };
    assert!((200..=300).contains(&left(&renewed)), "{}", left(&renewed));

    let ask = |rest: &str, body: Value| {
        platform.request("POST", &sandbox_path(&renewed, rest), &body).status
    };
    assert_eq!(ask("/refreshes", json!({ "duration": 900 })), 204);
    assert!((800..=900).contains(&left(&renewed)));
    assert_eq!(ask("/connect", json!({ "timeout": 10 })), 200);
    assert!(left(&renewed) > 800, "connecting shortens no life");
    assert_eq!(ask("/timeout", json!({ "timeout": 100 })), 204);
    assert!(left(&renewed) <= 100, "but this does");
    assert_eq!((ask("/timeout", json!({ "timeout": 0 })), ask("/timeout", json!({}))), (400, 400));
    assert_eq!(ask("/timeout", json!({ "timeout": 1 })), 204);
    let ended = || (platform.get_ok(&sandbox_path(&renewed, "")).status == 404).then_some(());
    eventually("it ends, too", ended).or_fail("waiting");
}

#[test]
fn what_was_applied_is_there_and_has_no_end() {
    let platform = E2bTestbed::new(0);
    let guest = platform.testbed.add_sandbox();
    guest.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    let shown = platform.get_ok(&format!("/sandboxes/{}", guest.id)).json();
    assert_eq!(
        (&shown["templateID"], &shown["network"]),
        (&json!(""), &json!({ "denyOut": ["8.8.8.8"] }))
    );
    assert!(shown["endAt"].as_str().is_some_and(|end| end.starts_with("9999-")), "{shown}");
    let refused =
        platform.request("POST", &sandbox_path(&shown, "/timeout"), &json!({ "timeout": 1 }));
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert_eq!(platform.request("POST", &sandbox_path(&shown, "/connect"), &json!({})).status, 200);
    assert!(platform.get_ok(&sandbox_path(&shown, "")).json()["endAt"] == shown["endAt"]);
}

#[test]
fn a_repeated_creation_is_the_same_one() {
    let platform = E2bTestbed::new(2);
    let create = |key: &str, body: &Value| {
        let body = body.to_string();
        let request = format!(
            "POST /v2/sandboxes HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\
             Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        platform.testbed.agent().send_raw(request.as_bytes()).or_fail("asking")
    };
    let first = create("key-1", &minimal_body());
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!(create("key-1", &minimal_body()).json(), first.json());
    let other = json!({ "templateID": "base", "network": { "denyOut": ["8.8.8.8"] } });
    assert_eq!(create("key-1", &other).status, 409);
    assert_eq!(create(&"k".repeat(256), &minimal_body()).status, 400);
    assert_ne!(create("key-2", &minimal_body()).json()["sandboxID"], first.json()["sandboxID"]);
    assert_eq!(platform.sandbox_ids("/v2/sandboxes").len(), 2);
}

#[test]
fn lists_are_filtered_and_come_in_pages() {
    let platform = E2bTestbed::new(3);
    let create = |template: &str, user: &str| {
        let metadata = json!({ "user name": user });
        sandbox_id(
            &platform.create_sandbox(&json!({ "templateID": template, "metadata": metadata })),
        )
    };
    let made = [create("a", "me"), create("b", "me"), create("b", "you & I")];
    let newest_first = made.iter().rev().cloned().collect::<Vec<_>>();
    let ids = |query: &str| platform.sandbox_ids(&format!("/v2/sandboxes?{query}"));
    assert_eq!(ids(""), newest_first);
    assert_eq!(ids("order=asc"), made);
    assert_eq!(ids("template=b&order=asc"), made[1..]);
    assert_eq!(ids("state=running"), newest_first);
    assert!(ids("state=paused").is_empty());
    // As the clients encode {"user name": "you & I"}: percent-encoded, form-encoded,
    // percent-encoded again.
    assert_eq!(ids("metadata=user%252520name%3Dyou%252520%252526%252520I"), made[2..]);
    let second = platform.get_ok(&format!("/sandboxes/{}", made[1])).json()["startedAt"].clone();
    let after = format!("startedAfter={}", second.as_str().or_fail("a time"));
    assert_eq!(
        ids(&after).into_iter().collect::<BTreeSet<_>>(),
        made[1..].iter().cloned().collect::<BTreeSet<_>>()
    );

    for list in ["/sandboxes", "/v2/sandboxes"] {
        let first = platform.get_ok(&format!("{list}?limit=2"));
        let token = first.header("X-Next-Token").or_fail("a token").to_owned();
        assert_eq!(first.json().as_array().map(Vec::len), Some(2));
        let next = format!("{list}?limit=2&nextToken={token}");
        let last = platform.get_ok(&next);
        assert_eq!(last.header("X-Next-Token"), None);
        assert_eq!(last.json()[0]["sandboxID"], json!(made[0]));
        assert_eq!(last.json().as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn secrets_are_where_they_belong_and_nowhere_else() {
    let platform = E2bTestbed::new(1);
    let proxy = json!({
        "address": "203.0.113.5:1080", "username": "u", "password": "hush-hush",
        "tls": { "enabled": true, "serverName": "proxy.example" },
    });
    let made = platform.create_sandbox(&json!({
        "templateID": "base", "network": { "egressProxy": proxy, "allowPublicTraffic": false },
    }));
    let token = made["trafficAccessToken"].as_str().or_fail("a token");
    let daemon = made["envdAccessToken"].as_str().or_fail("a token");
    assert!(!made.to_string().contains("hush-hush"));
    let own = format!("/agent/v1{}", sandbox_path(&made, ""));
    let told = platform.get_ok(&format!("{own}/token")).json();
    assert_eq!(told, json!({ "trafficAccessToken": token }));

    let shown = platform.get_ok(&sandbox_path(&made, "")).json();
    let expected = json!({
        "address": "203.0.113.5:1080", "username": "u",
        "tls": { "enabled": true, "serverName": "proxy.example" },
    });
    assert_eq!(shown["network"]["egressProxy"], expected);
    let url = format!("{own}/url?port=3000");
    let all = [
        sandbox_path(&made, ""),
        "/sandboxes".into(),
        "/v2/sandboxes".into(),
        own.clone(),
        url,
        "/agent/v1/sandboxes".into(),
        "/agent/v1/events?all=1".into(),
        "/metrics".into(),
        "/health".into(),
        "/openapi.json".into(),
    ];
    let answers = all.map(|path| platform.get_ok(&path)).map(|answer| {
        assert_eq!(answer.status, 200, "{}", answer.body);
        format!("{}\n{}", answer.head, answer.body)
    });
    let log = std::fs::read_to_string(platform.testbed.agent().log_path()).or_fail("the log");
    for text in answers.iter().chain([&log]) {
        for secret in [token, daemon, "hush-hush"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn a_public_url_is_shown_by_command_line_and_api() {
    let platform = E2bTestbed::new(1);
    let made = platform.create_sandbox(&json!({
        "templateID": "base", "network": { "allowPublicTraffic": false },
    }));
    let name = sandbox_id(&made);
    let url = format!("https://3000-{name}.sandbox.example.com:8443");
    let token = made["trafficAccessToken"].as_str().or_fail("a token");
    let run = |arguments: &[&str]| platform.testbed.cli(arguments);
    let plain = run(&["url", &name, "3000"]);
    assert_eq!((plain.exit_code, plain.stdout.trim_end()), (0, url.as_str()), "{}", plain.stderr);
    let both = run(&["url", &name, "3000", "--token"]);
    assert!(both.stdout.contains(token) && both.stdout.contains(&url), "{}", both.stdout);
    let expected = json!({ "url": url, "public": false, "trafficAccessToken": token });
    assert_eq!(run(&["url", &name, "3000", "--token", "-o", "json"]).json(), expected);
    assert_eq!(run(&["url", "nosuch", "3000"]).exit_code, 1);
    assert_eq!(run(&["url", &name, "0"]).exit_code, 2);
    for bad in ["", "?port=0", "?port=65536", "?port=x"] {
        let answer = platform.get_ok(&format!("/agent/v1/sandboxes/{name}/url{bad}"));
        assert_eq!(answer.status, 400, "{bad}: {}", answer.body);
    }
}

#[test]
fn without_a_domain_there_is_no_public_url() {
    let platform = E2bTestbed::with_config(CONFIG_WITHOUT_GATEWAY, 1);
    let made = platform.create_sandbox(&minimal_body());
    assert_eq!(made.get("domain"), None);
    let ran = platform.testbed.cli(&["url", &sandbox_id(&made), "3000"]);
    assert_eq!(ran.exit_code, 1);
    assert!(ran.stderr.contains("[gateway]") && ran.stderr.contains("domain"), "{}", ran.stderr);
}
