//! `network.rules`: headers that the agent sets in HTTPS requests, and that the sandbox never sees.

mod attacks;
mod authorities;
mod ca_delivery;
mod https_clients;
mod origins;
mod policy_internal;
mod rule_changes;
mod trusting_client;

use policy_testbed::{
    named_internet::{
        certificate_authority::ServerCertificate, curl::CurlCommand,
        recording_origin::RecordingOrigin,
    },
    testbed::{OrFail as _, RULES_CONFIG, SharedTestbed, TestSandbox},
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_names(RULES_CONFIG);

/// The value of the header that rules set in these tests.
const CREDENTIAL: &str = "Bearer of-the-operator";

/// A sandbox with a rule for the name of a server.
struct RuleScenario {
    sandbox: TestSandbox,
    origin: RecordingOrigin,
}

impl RuleScenario {
    /// A server that speaks HTTP/1.1 and HTTP/2.
    #[track_caller]
    fn new(name: &str) -> Self {
        Self::with_certificate(name, ServerCertificate::Valid)
    }

    #[track_caller]
    fn with_certificate(name: &str, certificate: ServerCertificate) -> Self {
        Self::in_sandbox(TESTBED.add_sandbox(), name, certificate)
    }

    #[track_caller]
    fn in_sandbox(sandbox: TestSandbox, name: &str, certificate: ServerCertificate) -> Self {
        let (names, internet) =
            (sandbox.testbed.named_internet(), &sandbox.testbed.network.internet);
        let origin = RecordingOrigin::start(names, internet, name, certificate);
        let origin = origin.or_fail("starting a server");
        let scenario = Self { sandbox, origin };
        scenario.apply_rules(&json!({ name: authorization(CREDENTIAL) }));
        scenario
    }

    fn name(&self) -> &str {
        &self.origin.site.name
    }

    /// Allows the server's name, and replaces the rules.
    #[track_caller]
    fn apply_rules(&self, rules: &Value) {
        self.sandbox.apply_network(json!({
            "allowOut": [self.name()], "denyOut": ["0.0.0.0/0"], "rules": rules,
        }));
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.name())
    }

    /// A curl that trusts the sandbox's authority.
    #[track_caller]
    fn curl(&self, path: &str) -> CurlCommand<'_> {
        trusting_client::trusting_curl(&self.sandbox, &self.url(path))
    }
}

/// A rule that sets `Authorization`.
fn authorization(value: &str) -> Value {
    json!([{ "transform": { "headers": { "Authorization": value } } }])
}
