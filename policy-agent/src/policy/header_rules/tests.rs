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

/// The error about rules of this form.
fn problem(json: &str) -> String {
    problem_under(json, &RuleLimits::default())
}

fn problem_under(json: &str, limits: &RuleLimits) -> String {
    let rules: NetworkRules = parse_json(json.as_bytes()).expect(json);
    let error = HeaderRules::new(&rules, limits).expect_err(json).to_string();
    assert!(!error.contains("hunter2"), "{error}");
    error.strip_prefix("network.rules: ").expect("the field").to_owned()
}

/// Rules of one domain with these headers.
fn with_headers(headers: &str) -> String {
    format!(r#"{{"x.example":[{{"transform":{{"headers":{{{headers}}}}}}}]}}"#)
}

/// A list of JSON members, made from their indexes.
fn members(count: usize, member: impl Fn(usize) -> String) -> String {
    (0..count).map(member).collect::<Vec<_>>().join(",")
}

#[test]
fn keys_have_limits_and_a_form() {
    let domains =
        |count| format!("{{{}}}", members(count, |index| format!(r#""d{index}.example":[]"#)));
    assert_eq!(problem(&domains(11)), "Network rules can have at most 10 domains.");
    assert_eq!(rules(&domains(10)).iter().count(), 10);
    let two = problem(r#"{"x.example":[{},{}]}"#);
    assert_eq!(two, r#"Domain "x.example" can have at most 1 transform rule."#);
    for empty in [r#"{"":[]}"#, r#"{" ":[]}"#] {
        assert_eq!(problem(empty), "Rule domain must not be empty.");
    }
    let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
    let error = problem(&format!(r#"{{"{long}":[]}}"#));
    assert_eq!(error, format!(r#"Rule domain "{long}" exceeds maximum length of 128 characters."#));
    for key in
        ["*", "a b", "*.*", "a.*.b", "192.0.2.1", "2001:db8::1", "https://a.example", "a:443"]
    {
        let error = problem(&format!(r#"{{"{key}":[]}}"#));
        assert_eq!(error, format!(r#"Rule domain "{key}" is not a valid domain name."#));
    }
    assert_eq!(rules(r#"{"*.com":[],"Bücher.example.":[]}"#).iter().count(), 2);
    let twice = problem(r#"{"x.example":[],"X.Example":[]}"#);
    assert_eq!(twice, r#"Rule domain "x.example" is given twice."#);
}

#[test]
fn headers_have_limits_and_a_form() {
    let many = |count| with_headers(&members(count, |index| format!(r#""X-{index}":"v""#)));
    assert_eq!(problem(&many(21)), r#"Domain "x.example" can have at most 20 headers per rule."#);
    assert!(!rules(&many(20)).is_empty());
    let empty = problem(&with_headers(r#""":"hunter2""#));
    assert_eq!(empty, r#"Header name in rule for domain "x.example" must not be empty."#);
    let long = "h".repeat(65);
    assert_eq!(
        problem(&with_headers(&format!(r#""{long}":"hunter2""#))),
        format!(
            r#"Header name "{long}" in rule for domain "x.example" exceeds maximum length of 64 characters."#
        )
    );
    for name in ["X Y", "X:", ":authority", "é", "X\\r\\nY"] {
        let error = problem(&with_headers(&format!(r#""{name}":"hunter2""#)));
        let end =
            r#"in rule for domain "x.example" must contain only valid HTTP token characters."#;
        assert!(error.starts_with("Header name \"") && error.ends_with(end), "{error}");
    }
    let twice = problem(&with_headers(r#""X-Key":"hunter2","x-key":"hunter2""#));
    assert_eq!(twice, r#"Header "x-key" in rule for domain "x.example" is given twice."#);
}

#[test]
fn headers_of_the_connection_are_refused() {
    for name in [
        "Host",
        "CONTENT-length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Upgrade",
        "te",
        "Trailer",
        "Expect",
        "Proxy-Authorization",
        "proxy-connection",
        "Proxy-X",
    ] {
        let error = problem(&with_headers(&format!(r#""{name}":"hunter2""#)));
        let start = format!(r#"Header "{name}" in rule for domain "x.example" cannot be set: "#);
        assert!(error.starts_with(&start), "{error}");
    }
    assert!(
        !rules(&with_headers(r#""Authorization":"a","Cookie":"b","X-Proxy-A":"c""#)).is_empty()
    );
}

#[test]
fn values_have_limits_and_a_form() {
    let value = |text: &str| with_headers(&format!(r#""X-Key":"{text}""#));
    let long = format!("hunter2{}", "v".repeat(2042));
    let what = r#"Value for header "X-Key" in rule for domain "x.example""#;
    let limit = "exceeds maximum length of 2048 characters.";
    assert_eq!(problem(&value(&long)), format!("{what} {limit}"));
    assert!(!rules(&value(&long[1..])).is_empty());
    for bad in ["\\r", "\\n", "\\u0000", "hunter2\\r\\nX: y", "\\u007f"] {
        assert_eq!(problem(&value(bad)), format!("{what} contains invalid characters."));
    }
    for bad in [
        "hunter2 ${e2b.secrets.}",
        "${e2b.secrets.a",
        "${e2b.secrets.a${e2b.secrets.b}}",
        "${e2b.secrets.a b}",
        "${e2b.secrets.sec_1}",
    ] {
        let malformed = "Network transform header contains a malformed E2B placeholder.";
        assert_eq!(problem(&value(bad)), malformed, "{bad}");
    }
    let identity = problem(&value("hunter2 ${e2b.identity.tokens.aws}"));
    assert!(identity.starts_with(what) && identity.contains("identity token"), "{identity}");
}

#[test]
fn a_domain_refers_to_few_secrets() {
    let reference = |index: usize| format!("${{e2b.secrets.s{index}}}");
    let value = |count| (0..count).map(reference).collect::<String>();
    let of = |one: &str, other: &str| with_headers(&format!(r#""A":"{one}","B":"{other}""#));
    let error = problem(&of(&value(33), ""));
    assert_eq!(error, r#"Rule domain "x.example" references more than 32 secrets."#);
    // The same secret twice is one.
    assert!(!rules(&of(&value(32), &value(32))).is_empty());
}

#[test]
fn the_operator_may_change_the_limits() {
    let limits = RuleLimits { domains: 1, headers: 1, value_bytes: 2, secrets: 0 };
    assert!(problem_under(r#"{"a.b":[],"c.d":[]}"#, &limits).contains("at most 1 domains"));
    let two = with_headers(r#""A":"1","B":"2""#);
    assert!(problem_under(&two, &limits).contains("at most 1 headers"));
    assert!(problem_under(&with_headers(r#""A":"123""#), &limits).contains("length of 2 char"));
    let limits = RuleLimits { secrets: 0, ..RuleLimits::NONE };
    let one = with_headers(r#""A":"${e2b.secrets.a}""#);
    assert!(problem_under(&one, &limits).contains("more than 0 secrets"));
}
