//! Property tests of configuration files: random input gives either a one-line error without
//! secrets, or a usable configuration.

use proptest::prelude::*;

use super::AgentConfig;
use crate::fuzz::{cases_or, hostile_bytes, mutated_bytes};

const SECRET_KEY: &str = "aSecretKeyOfTheAPI";

const VALID_CONFIG: &str = r#"state_dir = "/s"
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

const CONFIG_PIECES: [&str; 29] = [
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

fn check_parse(text: &[u8]) -> Result<(), TestCaseError> {
    let Ok(text) = std::str::from_utf8(text) else { return Ok(()) };
    match AgentConfig::parse(text) {
        Ok(config) => {
            prop_assert!(config.floor().is_ok());
            let shown = config.to_redacted_toml(true).expect("TOML");
            prop_assert!(!shown.contains(SECRET_KEY), "{shown}");
            prop_assert_eq!(
                config.pooled_interfaces().len(),
                config.interfaces.len() + config.slots.len()
            );
            prop_assert!(config.public_url("web", 80).is_none_or(|url| url.contains("://80-web.")));
        }
        Err(error) => {
            let message = format!("{error:#}");
            prop_assert!(!message.is_empty() && !message.contains(SECRET_KEY), "{message}");
            prop_assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
    Ok(())
}

#[test]
fn no_depth_is_too_much() {
    for open in ["[", "{a=", "a.", "x=[", "x={y=["] {
        check_parse(format!("a={}", open.repeat(50_000)).as_bytes()).expect(open);
        check_parse(open.repeat(50_000).as_bytes()).expect(open);
    }
}

#[test]
fn a_wrong_key_is_not_shown() {
    for text in ["api_keys = \"K\"", "api_keys = [\"K\", 5]", "api_keys = [\"K\"", "api_keys.K = 1"]
    {
        check_parse(format!("[api]\n{}", text.replace('K', SECRET_KEY)).as_bytes()).expect(text);
    }
    check_parse(format!("api = \"{SECRET_KEY}\"").as_bytes()).expect("a table");
    let unknown = format!("{:#}", AgentConfig::parse("[api]\nlistn = 1").expect_err("unknown"));
    for text in ["metrics = \"K\"", "[metrics]\ntoken = [\"K\"]", "[metrics]\ntoken.K = 1"] {
        check_parse(text.replace('K', SECRET_KEY).as_bytes()).expect(text);
    }
    assert!(unknown.starts_with("line 2: ") && unknown.contains("listn"), "{unknown}");
}

proptest! {
    #![proptest_config(cases_or(256))]

    #[test]
    fn a_mutated_file_is_used_or_told(text in mutated_bytes(VALID_CONFIG)) {
        check_parse(&text)?;
    }

    #[test]
    fn an_arbitrary_file_is_used_or_told(text in hostile_bytes(&CONFIG_PIECES, 16)) {
        check_parse(&text)?;
    }
}
