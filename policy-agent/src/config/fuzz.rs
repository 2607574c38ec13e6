//! Configuration files, as wrong as chance makes them: an error in one line without a secret, or a
//! configuration that can be used.

use proptest::prelude::*;

use super::Config;
use crate::fuzz::{few, hostile, mutated};

const KEY: &str = "aSecretKeyOfTheAPI";

const GOOD: &str = r#"state_dir = "/s"
bpffs = "/sys/fs/bpf/x"
default_nameserver = "1.1.1.1"
[api]
listen = "127.0.0.1:3000"
api_keys = ["aSecretKeyOfTheAPI", "aSecretKeyOfTheAPI2"]
[metrics]
listen = "127.0.0.1:9464"
token = "aSecretKeyOfTheAPI"
[dataplane]
mode = "xdp"
attach = "clsact"
deny_action = "drop"
platform_allow = ["10.0.0.53"]
platform_deny = ["10.0.0.0/8"]
platform_deny_add = ["203.0.113.0/24"]
[proxy]
resolvers = ["10.0.0.53:53"]
[gateway]
domain = "sandbox.example.com"
http = "0.0.0.0:80"
max_connections_per_sandbox = 1024
trusted_proxies = ["192.0.2.0/24", "2001:db8::1"]
[[interfaces]]
interface = "tap0"
netns = "/run/netns/slot1"
addresses = ["10.11.0.2", "fd00::2"]
mac = "02:fc:00:00:00:05"
"#;

const PIECES: [&str; 29] = [
    "[api]\n",
    "[[api]]\n",
    "[[slots]]\n",
    "[[interfaces]]\n",
    "[slots]\n",
    "[gateway]\n",
    "[dataplane]\n",
    "api_keys",
    "interface",
    "addresses",
    "domain",
    "platform_deny",
    " = ",
    "=",
    "\n",
    "\"aSecretKeyOfTheAPI\"",
    "'aSecretKeyOfTheAPI'",
    "\"",
    "\"\"\"",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ".",
    "1979-05-27",
    "-1",
    "\"10.0.0.0/8\"",
    "#",
];

fn try_it(text: &[u8]) -> Result<(), TestCaseError> {
    let Ok(text) = std::str::from_utf8(text) else { return Ok(()) };
    match Config::parse(text) {
        Ok(config) => {
            prop_assert!(config.floor().is_ok());
            let shown = config.show(true).expect("TOML");
            prop_assert!(!shown.contains(KEY), "{shown}");
            prop_assert_eq!(config.berths().len(), config.interfaces.len() + config.slots.len());
            prop_assert!(config.url("web", 80).is_none_or(|url| url.contains("://80-web.")));
        }
        Err(error) => {
            let message = format!("{error:#}");
            prop_assert!(!message.is_empty() && !message.contains(KEY), "{message}");
            prop_assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
    Ok(())
}

#[test]
fn no_depth_is_too_much() {
    for open in ["[", "{a=", "a.", "x=[", "x={y=["] {
        try_it(format!("a={}", open.repeat(50_000)).as_bytes()).expect(open);
        try_it(open.repeat(50_000).as_bytes()).expect(open);
    }
}

#[test]
fn a_wrong_key_is_not_shown() {
    for text in ["api_keys = \"K\"", "api_keys = [\"K\", 5]", "api_keys = [\"K\"", "api_keys.K = 1"]
    {
        try_it(format!("[api]\n{}", text.replace('K', KEY)).as_bytes()).expect(text);
    }
    try_it(format!("api = \"{KEY}\"").as_bytes()).expect("a table");
    let unknown = format!("{:#}", Config::parse("[api]\nlistn = 1").expect_err("unknown"));
    for text in ["metrics = \"K\"", "[metrics]\ntoken = [\"K\"]", "[metrics]\ntoken.K = 1"] {
        try_it(text.replace('K', KEY).as_bytes()).expect(text);
    }
    assert!(unknown.starts_with("line 2: ") && unknown.contains("listn"), "{unknown}");
}

proptest! {
    #![proptest_config(few(256))]

    #[test]
    fn a_mutated_file_is_used_or_told(text in mutated(GOOD)) {
        try_it(&text)?;
    }

    #[test]
    fn an_arbitrary_file_is_used_or_told(text in hostile(&PIECES, 16)) {
        try_it(&text)?;
    }
}
