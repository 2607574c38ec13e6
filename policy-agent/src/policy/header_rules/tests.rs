use super::super::{SecretLookup, SecretName, SecretValue, parse_json};
use super::*;

fn rules(json: &str) -> HeaderRules {
    let rules: NetworkRules = parse_json(json.as_bytes()).expect("the form");
    HeaderRules::new(&rules, &RuleLimits::default()).expect("valid rules")
}

fn name(text: &str) -> DomainName {
    DomainName::parse_requested(text).expect("a name")
}

fn key_for(rules: &HeaderRules, asked: &str) -> Option<String> {
    rules.rule_for(&name(asked)).map(|rule| rule.key().to_string())
}

#[test]
fn the_most_specific_key_is_used_alone() {
    let rules = rules(
        r#"{"Api.Example.COM":[{"transform":{"headers":{"A":"1"}}}],
            "*.example.com":[{"transform":{"headers":{"B":"2"}}}],
            "*.b.example.com":[{"transform":{"headers":{"C":"3"}}}],
            "*.org":[{"transform":{"headers":{"D":"4"}}}]}"#,
    );
    for (asked, key) in [
        ("api.example.com", Some("api.example.com")),
        ("x.api.example.com", Some("*.example.com")),
        ("a.b.example.com", Some("*.b.example.com")),
        ("z.a.b.example.com", Some("*.b.example.com")),
        ("b.example.com", Some("*.example.com")),
        ("example.com", None),
        ("notexample.com", None),
        ("example.org", Some("*.org")),
        ("org", None),
    ] {
        assert_eq!(key_for(&rules, asked).as_deref(), key, "{asked}");
    }
    let rule = rules.rule_for(&name("api.example.com")).expect("a rule");
    assert_eq!(rule.headers().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(rule.to_string(), "api.example.com: a");
}

#[test]
fn a_key_without_headers_exempts_its_names() {
    let none = rules(r#"{"a.example":[],"b.example":[{}],"c.example":[{"transform":{}}]}"#);
    assert!(none.is_empty());
    assert_eq!(none.iter().count(), 3);
    let some =
        rules(r#"{"pinned.a.example":[{}],"*.a.example":[{"transform":{"headers":{"A":"1"}}}]}"#);
    assert!(!some.is_empty());
    assert_eq!(key_for(&some, "pinned.a.example"), None);
    assert_eq!(key_for(&some, "x.a.example").as_deref(), Some("*.a.example"));
}

/// Knows one secret.
struct OneSecret(&'static str, &'static [u8]);

impl SecretLookup for OneSecret {
    fn current_value(&self, name: &SecretName) -> Option<SecretValue> {
        (name.as_str() == self.0).then(|| SecretValue::new(self.1.to_vec()))
    }
}

fn render(value: &str, secrets: &OneSecret) -> Result<String, RenderError> {
    let template = HeaderTemplate::parse(value).expect("a template");
    let rendered = template.render(secrets)?;
    assert!(rendered.is_sensitive(), "{value}");
    assert!(!format!("{template:?}{rendered:?}").contains("hunter2"), "{value}");
    Ok(String::from_utf8_lossy(rendered.as_bytes()).into_owned())
}

#[test]
fn placeholders_are_replaced_by_the_values_of_secrets() {
    let secrets = OneSecret("key", b"hunter2");
    for (value, sent) in [
        ("plain", "plain"),
        ("", ""),
        ("${e2b.secrets.key}", "hunter2"),
        ("Bearer ${e2b.secrets.key}", "Bearer hunter2"),
        ("${e2b.secrets. KEY }:${e2b.secrets.key};", "hunter2:hunter2;"),
        ("${HOME} ${e2b.other} $ { } ${", "${HOME} ${e2b.other} $ { } ${"),
        ("${e2b.x${e2b.secrets.key}}", "${e2b.xhunter2}"),
        ("é", "é"),
    ] {
        assert_eq!(render(value, &secrets).as_deref(), Ok(sent), "{value}");
    }
}

#[test]
fn a_secret_that_cannot_be_sent_gives_no_value() {
    let named = |text: &str| SecretName::parse(text).expect("a name");
    let missing = render("${e2b.secrets.other}", &OneSecret("key", b"hunter2"));
    assert_eq!(missing, Err(RenderError::UnknownSecret(named("other"))));
    for value in [&b"a\r\nB: c"[..], b"a\nb", b"a\rb", b"a\0b", b"\x7f", b"\n"] {
        let rendered = render("Bearer ${e2b.secrets.key}", &OneSecret("key", value));
        assert_eq!(rendered, Err(RenderError::InvalidValue(named("key"))), "{value:?}");
    }
}
