//! Random hostile JSON that describes sandboxes results in an error that contains a field, or in a
//! consistent sandbox.

use std::fmt::Debug;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    Floor, NetworkConfig, PolicyDefaults, SandboxSpec, ValidationError, parse_json, parse_manifest,
};
use crate::fuzz::{cases_or, mutated_bytes};

const PASSWORD: &str = "hunter2Secret";

const VALID_SPEC_JSON: &str = r#"{"sandboxID":"web1","interface":"tap0","netns":"/run/netns/a",
"addresses":["10.11.0.2","fd00::2"],"mac":"02:fc:00:00:00:05","allowInternetAccess":false,
"network":{"allowOut":["1.1.1.1","10.1.0.0/16","*.a.example","b.example"],"denyOut":["0.0.0.0/0"],
"dnsServers":["9.9.9.9"],"allowPublicTraffic":true,"allowPublicFrom":["192.0.2.0/24"],"maskRequestHost":"${PORT}-x:80",
"httpsPorts":[443,8443],"egressProxy":{"address":"p.example:1080","username":"u",
"password":"hunter2Secret","tls":{"enabled":true,"serverName":"p"}},"rules":{"b.example":[{"transform":{"headers":
{"X-Key":"v ${e2b.secrets.a}"}}}]}}}"#;

const FIELD_NAMES: [&str; 32] = [
    "sandboxID",
    "sandbox_id",
    "interface",
    "netns",
    "container",
    "addresses",
    "mac",
    "allowInternetAccess",
    "allow_internet_access",
    "network",
    "allowOut",
    "allow_out",
    "denyOut",
    "dnsServers",
    "egressProxy",
    "egress_proxy",
    "address",
    "username",
    "tls",
    "enabled",
    "serverName",
    "ca",
    "caCert",
    "allowPublicTraffic",
    "allowPublicFrom",
    "maskRequestHost",
    "httpsPorts",
    "rules",
    "",
    "denyout",
    "a`b",
    "\u{1b}[31m\n",
];

const SAMPLE_TEXTS: [&str; 20] = [
    "web1",
    "tap0",
    "10.11.0.2",
    "::ffff:10.0.0.2",
    "fd00::/8",
    "0.0.0.0/0",
    "10.0.0.0/40",
    "*.a.example",
    "*",
    "",
    "02:fc:00:00:00:05",
    "p.example:1080",
    "[::1]:65536",
    "${PORT}-x",
    "${PORT",
    "\u{0}",
    "ä.example",
    "xn--",
    "../../etc",
    " ",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => prop::sample::select(&SAMPLE_TEXTS[..]).prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    let name = prop::sample::select(&FIELD_NAMES[..]).prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 8, move |inner| {
        let fields = prop::collection::vec((name.clone(), inner.clone()), 0..8);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A valid description with some fields replaced, at two levels.
fn mutated_valid_spec() -> impl Strategy<Value = Value> {
    let change = (any::<bool>(), prop::sample::select(&FIELD_NAMES[..]), any_json());
    prop::collection::vec(change, 1..4).prop_map(|changes| {
        let mut good: Value = serde_json::from_str(VALID_SPEC_JSON).expect("JSON");
        for (outside, name, value) in changes {
            let place = if outside { &mut good } else { &mut good["network"] };
            if let Some(fields) = place.as_object_mut() {
                fields.insert(name.to_owned(), value);
            }
        }
        good
    })
}

/// Checks properties of an error about this text.
fn check_error<T: Debug>(
    text: &[u8],
    read: &Result<T, ValidationError>,
) -> Result<(), TestCaseError> {
    let Err(error) = read else { return Ok(()) };
    let message = error.to_string();
    let is_json = serde_json::from_slice::<Value>(text).is_ok();
    let is_object = serde_json::from_slice::<Map<String, Value>>(text).is_ok();
    // If all of it is wrong, there is no field to report.
    prop_assert!(
        !error.field.is_empty() || !is_json || !is_object || message.starts_with("not valid JSON"),
        "{message}"
    );
    // A mutation may turn the password into a field's name.
    prop_assert!(!message.contains(PASSWORD) || message.contains("unknown field"), "{message}");
    prop_assert!(!message.contains(" at line ") || error.field.is_empty(), "{message}");
    let plain = message.chars().all(|char| !char.is_control());
    prop_assert!(plain && message.len() < 2000, "{message:?}");
    Ok(())
}

/// Checks that an accepted description is valid and survives serialisation.
fn check_accepted_spec(sandbox: &SandboxSpec) -> Result<(), TestCaseError> {
    let judged = sandbox.validate();
    let policy = sandbox.build_policy(&PolicyDefaults::default(), &Floor::default());
    prop_assert!(policy.is_ok() || !policy.unwrap_err().field.is_empty());
    prop_assert!(judged.is_ok() || !judged.unwrap_err().field.is_empty());
    let kept = sandbox.to_json_with_secrets().expect("JSON").to_string();
    prop_assert_eq!(&parse_json::<SandboxSpec>(kept.as_bytes()), &Ok(sandbox.clone()));
    let shown = format!("{sandbox:?} {}", json!(sandbox));
    prop_assert!(!shown.contains(PASSWORD), "{shown}");
    Ok(())
}

fn parse_every_form(text: &[u8]) -> Result<(), TestCaseError> {
    let sandbox = parse_json::<SandboxSpec>(text);
    check_error(text, &sandbox)?;
    if let Ok(sandbox) = &sandbox {
        check_accepted_spec(sandbox)?;
    }
    check_error(text, &parse_json::<NetworkConfig>(text))?;
    let Ok(text) = std::str::from_utf8(text) else { return Ok(()) };
    if let Ok(sandboxes) = parse_manifest(text) {
        sandboxes.iter().try_for_each(check_accepted_spec)?;
    }
    Ok(())
}

#[test]
fn the_good_one_is_good() {
    check_accepted_spec(&parse_json(VALID_SPEC_JSON.as_bytes()).expect("good")).expect("sound");
}

#[test]
fn no_depth_is_too_much() {
    for open in ["[", "{\"network\":", "{\"rules\":[", "{\"egressProxy\":{\"tls\":"] {
        parse_every_form(open.repeat(100_000).as_bytes()).expect(open);
    }
}

proptest! {
    #![proptest_config(cases_or(256))]

    #[test]
    fn arbitrary_json_is_read_or_told(value in any_json()) {
        parse_every_form(value.to_string().as_bytes())?;
    }

    #[test]
    fn nearly_good_json_is_read_or_told(value in mutated_valid_spec()) {
        parse_every_form(value.to_string().as_bytes())?;
    }

    #[test]
    fn a_mutated_description_is_read_or_told(text in mutated_bytes(VALID_SPEC_JSON)) {
        parse_every_form(&text)?;
    }
}
