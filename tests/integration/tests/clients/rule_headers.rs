//! The same clients under `network.rules`: each trusts the sandbox's own authority and nothing else, and
//! the servers get the header, whatever version of HTTP the client speaks.

use policy_testbed::{sdk::E2bSdk, testbed::OrFail as _};

use super::{
    field_client::FieldClient,
    field_testbed::FieldTestbed,
    git_client::{GIT_HOST, REPOSITORY_PATH},
    go_client::{self, MODULE_PROXY_HOST},
    java_client, node_clients, programs_directory, python_clients,
};

/// A host with a page.
const API_HOST: &str = "api.openai.com";

/// Asserts that each host got the header in each of these versions.
#[track_caller]
fn assert_got_header(field: &FieldTestbed, authorization: &str, expected: &[(&str, &str)]) {
    let requests = field.registry.requests_with(authorization);
    for (host, version) in expected {
        let is_expected = requests.iter().any(|it| it.host == *host && it.version == *version);
        assert!(is_expected, "{host} {version}: {requests:?}");
    }
}

#[test]
fn go_gets_a_module_with_the_header() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_rules(&[MODULE_PROXY_HOST], "Bearer for-go");
    go_client::go_get(&FieldClient::trusting_rules(&sandbox)).assert_succeeded();
    assert_got_header(&field, "Bearer for-go", &[(MODULE_PROXY_HOST, "HTTP/2.0")]);
}

#[test]
fn java_fetches_pages_with_the_header() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_rules(&[API_HOST], "Bearer for-java");
    let url = format!("https://{API_HOST}/");
    let urls = [&*format!("{url}#HTTP_1_1"), &*format!("{url}#HTTP_2")];
    let ran = java_client::java_fetch(&FieldClient::trusting_rules(&sandbox), &urls);
    for (url, version) in urls.iter().zip(["HTTP_1_1", "HTTP_2"]) {
        ran.assert_mentions(&format!("{url} 200 {version} a page of {API_HOST}"));
    }
    let expected = [(API_HOST, "HTTP/1.1"), (API_HOST, "HTTP/2.0")];
    assert_got_header(&field, "Bearer for-java", &expected);
}

#[test]
fn git_clones_with_the_header() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_rules(&[GIT_HOST], "Bearer for-git");
    let url = format!("https://{GIT_HOST}{REPOSITORY_PATH}");
    for version in ["HTTP/1.1", "HTTP/2"] {
        let git = FieldClient::trusting_rules(&sandbox);
        let option = format!("http.version={version}");
        let ca = git.ca_file();
        let trusting = [("GIT_SSL_CAINFO", ca.as_os_str())];
        git.run("git", &["-c", &option, "clone", "-q", &url, "tool"], &trusting).assert_succeeded();
        assert_eq!(git.read_file("tool/README"), "from the repository\n");
    }
    let expected = [(GIT_HOST, "HTTP/1.1"), (GIT_HOST, "HTTP/2.0")];
    assert_got_header(&field, "Bearer for-git", &expected);
}

#[test]
fn pip_installs_a_wheel_with_the_header() {
    let field = FieldTestbed::shared();
    let names = [python_clients::INDEX_HOST, python_clients::FILES_HOST];
    let sandbox = field.sandbox_with_rules(&names, "Bearer for-pip");
    python_clients::pip_install(&FieldClient::trusting_rules(&sandbox)).assert_succeeded();
    assert_got_header(&field, "Bearer for-pip", &names.map(|name| (name, "HTTP/1.1")));
}

#[test]
fn npm_installs_a_tarball_with_the_header() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_rules(&[node_clients::REGISTRY_HOST], "Bearer for-npm");
    node_clients::npm_install(&FieldClient::trusting_rules(&sandbox)).assert_succeeded();
    let expected = [(node_clients::REGISTRY_HOST, "HTTP/1.1")];
    assert_got_header(&field, "Bearer for-npm", &expected);
}

#[test]
fn pythons_libraries_fetch_pages_with_the_header() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_rules(&[API_HOST], "Bearer for-python");
    let client = FieldClient::trusting_rules(&sandbox);
    let python = E2bSdk::Python.interpreter().or_fail("looking for Python");
    let program = programs_directory().join("fetch.py").to_string_lossy().into_owned();
    let arguments = [&*program, &*format!("https://{API_HOST}/")];
    let ca = client.ca_file();
    let ran = client.run(python, &arguments, &[("SSL_CERT_FILE", ca.as_os_str())]);
    for (library, version) in [("by_urllib", "HTTP/1.1"), ("by_httpx", "HTTP/2")] {
        ran.line_starting_with(library).assert_mentions(&format!("200 {version} a page"));
    }
    let expected = [(API_HOST, "HTTP/1.1"), (API_HOST, "HTTP/2.0")];
    assert_got_header(&field, "Bearer for-python", &expected);
}
