//! Realistic lists: `check` accepts them, and they allow what their authors intend.

use std::io::Read as _;

use policy_testbed::{
    named_internet::{client_hello, raw_http::RawHttpConnection},
    test_servers::{HTTP_PORT, HTTPS_PORT},
    testbed::{OrFail as _, TestSandbox},
};

use super::field_testbed::{FieldTestbed, read_allow_list};

/// The first byte of a TLS handshake record, as in a server's reply (RFC 8446).
const TLS_HANDSHAKE_RECORD: u8 = 22;

/// A list in `tests/fixtures/field`, and its meaning.
struct AllowList {
    name: &'static str,
    allowed: &'static [&'static str],
    refused: &'static [&'static str],
}

/// The list of a CI runner.
const CI_RUNNER_LIST: AllowList = AllowList {
    name: "ci_runner",
    allowed: &[
        "github.com",
        "GitHub.com",
        "api.github.com",
        "vstoken.actions.githubusercontent.com",
        "pipelines.eu.actions.githubusercontent.com",
        "results-receiver.actions.githubusercontent.com",
        "codeload.github.com",
        "objects.githubusercontent.com",
        "productionresultssa0.blob.core.windows.net",
        "npm.pkg.github.com",
        "ghcr.io",
        "pkg-containers.githubusercontent.com",
        "github-cloud.s3.amazonaws.com",
    ],
    refused: &[
        "gist.github.com",
        "www.github.com",
        "pkg.github.com",
        "githubusercontent.com",
        "actions.githubusercontent.com",
        "raw.githubusercontent.com",
        "blob.core.windows.net",
        "core.windows.net",
        "evil-github.com",
        "github.com.evil.test",
        "evilactions.githubusercontent.com",
        "sub.ghcr.io",
        "github.co",
        "s3.amazonaws.com",
    ],
};

/// The list of a coding agent. A host name must not contain `_`, but real lists do.
const CODING_AGENT_LIST: AllowList = AllowList {
    name: "coding_agent",
    allowed: &[
        "api.anthropic.com",
        "statsig.anthropic.com",
        "api.openai.com",
        "my-team.openai.azure.com",
        "raw.githubusercontent.com",
        "pypi.org",
        "files.pythonhosted.org",
        "registry.npmjs.org",
        "index.crates.io",
        "static.crates.io",
        "proxy.golang.org",
        "sum.golang.org",
        "deb.debian.org",
        "security.debian.org",
        "archive.ubuntu.com",
        "us-east-1.ec2.archive.ubuntu.com",
        "s3.amazonaws.com",
        "my_bucket.s3.amazonaws.com",
        "other_bucket.s3.amazonaws.com",
        "_dmarc.s3.amazonaws.com",
        "ends-in-.s3.amazonaws.com",
        "-begins.s3.amazonaws.com",
        "my.dotted.bucket.s3.eu-central-1.amazonaws.com",
        "team_assets.storage.googleapis.com",
        "xn--bcher-kva.example",
    ],
    refused: &[
        "anthropic.com",
        "console.anthropic.com",
        "openai.com",
        "openai.azure.com",
        "test.pypi.org",
        "pypi.org.evil.test",
        "pythonhosted.org",
        "npmjs.org",
        "crates.io",
        "golang.org",
        "debian.org",
        "ubuntu.com",
        "amazonaws.com",
        "amazonaws.com.evil.test",
        "my_bucket.s3.amazonaws.com.cn",
        "storage.googleapis.com",
        "other_assets.storage.googleapis.com",
        "bucher.example",
    ],
};

/// The list of a mirror of packages and images.
const PACKAGE_REGISTRY_LIST: AllowList = AllowList {
    name: "package_registry",
    allowed: &[
        "docker.io",
        "registry-1.docker.io",
        "auth.docker.io",
        "production.cloudflare.docker.com",
        "quay.io",
        "cdn03.quay.io",
        "gcr.io",
        "eu.gcr.io",
        "europe-west1-docker.pkg.dev",
        "registry.k8s.io",
        "mcr.microsoft.com",
        "eastus.data.mcr.microsoft.com",
        "repo1.maven.org",
        "repo.maven.apache.org",
        "rubygems.org",
        "index.rubygems.org",
        "repo.packagist.org",
        "api.nuget.org",
        "cdn.jsdelivr.net",
        "prod-registry-k8s-io-us-east-1.s3.dualstack.us-east-1.amazonaws.com",
    ],
    refused: &[
        "docker.com",
        "docker.io.evil.test",
        "pkg.dev",
        "k8s.io",
        "asia.registry.k8s.io",
        "data.mcr.microsoft.com",
        "microsoft.com",
        "repo2.maven.org",
        "packagist.org",
        "nuget.org",
        "jsdelivr.net",
        "s3.dualstack.us-east-1.amazonaws.com",
        "bucket.s3.dualstack.us-east-2.amazonaws.com",
    ],
};

impl AllowList {
    /// Asserts that `check` accepts the list and that connections to each name follow it.
    #[track_caller]
    fn assert_enforced(&self) -> TestSandbox {
        let field = FieldTestbed::shared();
        let sandbox = field.sandbox_with_list(self.name, self.allowed);
        field.resolve_to_registry(self.refused);
        let spec = sandbox.sandbox_spec(&read_allow_list(self.name)).to_string();
        let checked = field.testbed.cli_with_stdin(&["check", "-f", "-"], &spec);
        assert_eq!(checked.exit_code, 0, "{}: {}", self.name, checked.stderr);
        for (names, expected) in [(self.allowed, true), (self.refused, false)] {
            for name in names {
                if can_have_certificate(name) {
                    assert_eq!(
                        is_answered_over_tls(&field, &sandbox, name),
                        expected,
                        "{name} over TLS"
                    );
                }
                assert_eq!(
                    is_answered_over_http(&field, &sandbox, name),
                    expected,
                    "{name} over HTTP"
                );
            }
        }
        sandbox
    }
}

/// The test servers have no certificates for labels that begin or end with `-`.
fn can_have_certificate(name: &str) -> bool {
    !name.split('.').any(|label| label.starts_with('-') || label.ends_with('-'))
}

/// Returns whether a server responds to a TLS connection to a name.
#[track_caller]
fn is_answered_over_tls(field: &FieldTestbed, sandbox: &TestSandbox, name: &str) -> bool {
    let mut talk = connect_to_registry(field, sandbox, HTTPS_PORT);
    let mut first = [0];
    let answered = talk.send(client_hello::hello_records(name)).stream().read_exact(&mut first);
    answered.is_ok() && first == [TLS_HANDSHAKE_RECORD]
}

/// Returns whether a server responds to an HTTP request to a host.
#[track_caller]
fn is_answered_over_http(field: &FieldTestbed, sandbox: &TestSandbox, name: &str) -> bool {
    let reply = connect_to_registry(field, sandbox, HTTP_PORT).send_get(name).read_response();
    assert!(matches!(reply.status, 200 | 403), "{name}: {reply:?}");
    reply.status == 200
}

#[track_caller]
fn connect_to_registry(
    field: &FieldTestbed,
    sandbox: &TestSandbox,
    port: u16,
) -> RawHttpConnection {
    RawHttpConnection::connect(&sandbox.namespace, (field.address, port).into())
        .or_fail("connecting")
}

#[test]
fn list_of_a_ci_runner() {
    let sandbox = CI_RUNNER_LIST.assert_enforced();
    sandbox.assert_reaches("203.0.113.10");
    sandbox.assert_refused("203.0.113.11");
    sandbox.assert_name_denied("gist.github.com", "name_not_allowed");
}

#[test]
fn list_of_a_coding_agent() {
    let sandbox = CODING_AGENT_LIST.assert_enforced();
    sandbox.assert_refused("203.0.113.11");
    sandbox.assert_name_denied("amazonaws.com", "name_not_allowed");
}

#[test]
fn list_of_a_package_registry() {
    let sandbox = PACKAGE_REGISTRY_LIST.assert_enforced();
    sandbox.assert_reaches("2001:db8:2::1");
    sandbox.assert_refused("2001:db8:1::1");
    sandbox.assert_name_denied("asia.registry.k8s.io", "name_not_allowed");
}
