//! JSON that describes sandboxes, as hostile as chance makes it: an error, which names a field, or a
//! description that holds what it says.

use std::fmt::Debug;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Defaults, Floor, Invalid, NetworkConfig, SandboxSpec, parse, read};
use crate::fuzz::{few, mutated};

const PASSWORD: &str = "hunter2Secret";

const GOOD: &str = r#"{"sandboxID":"web1","interface":"tap0","netns":"/run/netns/a",
"addresses":["10.11.0.2","fd00::2"],"mac":"02:fc:00:00:00:05","allowInternetAccess":false,
"network":{"allowOut":["1.1.1.1","10.1.0.0/16","*.a.example","b.example"],"denyOut":["0.0.0.0/0"],
"dnsServers":["9.9.9.9"],"allowPublicTraffic":true,"maskRequestHost":"${PORT}-x:80",
"httpsPorts":[443,8443],"egressProxy":{"address":"p.example:1080","username":"u",
"password":"hunter2Secret","tls":{"enabled":true,"serverName":"p"}},"rules":[]}}"#;

const NAMES: [&str; 30] = [
    "sandboxID",
    "sandbox_id",
    "interface",
    "netns",
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
    "maskRequestHost",
    "httpsPorts",
    "rules",
    "",
    "denyout",
    "a`b",
    "\u{1b}[31m\n",
];

const TEXTS: [&str; 20] = [
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

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => prop::sample::select(&TEXTS[..]).prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    let name = prop::sample::select(&NAMES[..]).prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 8, move |inner| {
        let fields = prop::collection::vec((name.clone(), inner.clone()), 0..8);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A good description in which something else stands for some fields, at two depths.
fn nearly_good() -> impl Strategy<Value = Value> {
    let change = (any::<bool>(), prop::sample::select(&NAMES[..]), value());
    prop::collection::vec(change, 1..4).prop_map(|changes| {
        let mut good: Value = serde_json::from_str(GOOD).expect("JSON");
        for (outside, name, value) in changes {
            let place = if outside { &mut good } else { &mut good["network"] };
            if let Some(fields) = place.as_object_mut() {
                fields.insert(name.to_owned(), value);
            }
        }
        good
    })
}

/// What holds of an error about this text.
fn is_told<T: Debug>(text: &[u8], read: &Result<T, Invalid>) -> Result<(), TestCaseError> {
    let Err(error) = read else { return Ok(()) };
    let message = error.to_string();
    let is_json = serde_json::from_slice::<Value>(text).is_ok();
    let is_object = serde_json::from_slice::<Map<String, Value>>(text).is_ok();
    // Where all of it is wrong there is no field to name.
    prop_assert!(
        !error.field.is_empty() || !is_json || !is_object || message.starts_with("not valid JSON"),
        "{message}"
    );
    // A mutation may make a field's name of it.
    prop_assert!(!message.contains(PASSWORD) || message.contains("unknown field"), "{message}");
    prop_assert!(!message.contains(" at line ") || error.field.is_empty(), "{message}");
    let plain = message.chars().all(|char| !char.is_control());
    prop_assert!(plain && message.len() < 2000, "{message:?}");
    Ok(())
}

/// A description that is accepted means something, and is the same after it was kept.
fn is_sound(sandbox: &SandboxSpec) -> Result<(), TestCaseError> {
    let judged = sandbox.validate();
    let policy = sandbox.policy(&Defaults::default(), &Floor::default());
    prop_assert!(policy.is_ok() || !policy.unwrap_err().field.is_empty());
    prop_assert!(judged.is_ok() || !judged.unwrap_err().field.is_empty());
    let kept = sandbox.with_secrets().expect("JSON").to_string();
    prop_assert_eq!(&parse::<SandboxSpec>(kept.as_bytes()), &Ok(sandbox.clone()));
    let shown = format!("{sandbox:?} {}", json!(sandbox));
    prop_assert!(!shown.contains(PASSWORD), "{shown}");
    Ok(())
}

fn try_all(text: &[u8]) -> Result<(), TestCaseError> {
    let sandbox = parse::<SandboxSpec>(text);
    is_told(text, &sandbox)?;
    if let Ok(sandbox) = &sandbox {
        is_sound(sandbox)?;
    }
    is_told(text, &parse::<NetworkConfig>(text))?;
    let Ok(text) = std::str::from_utf8(text) else { return Ok(()) };
    if let Ok(sandboxes) = read(text) {
        sandboxes.iter().try_for_each(is_sound)?;
    }
    Ok(())
}

#[test]
fn the_good_one_is_good() {
    is_sound(&parse(GOOD.as_bytes()).expect("good")).expect("sound");
}

#[test]
fn no_depth_is_too_much() {
    for open in ["[", "{\"network\":", "{\"rules\":[", "{\"egressProxy\":{\"tls\":"] {
        try_all(open.repeat(100_000).as_bytes()).expect(open);
    }
}

proptest! {
    #![proptest_config(few(256))]

    #[test]
    fn arbitrary_json_is_read_or_told(value in value()) {
        try_all(value.to_string().as_bytes())?;
    }

    #[test]
    fn nearly_good_json_is_read_or_told(value in nearly_good()) {
        try_all(value.to_string().as_bytes())?;
    }

    #[test]
    fn a_mutated_description_is_read_or_told(text in mutated(GOOD)) {
        try_all(&text)?;
    }
}
