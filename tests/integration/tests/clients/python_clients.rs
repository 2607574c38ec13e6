//! Python: pip, urllib and httpx.

use anyhow::Result;
use policy_testbed::{sdk::E2bSdk, testbed::OrFail as _};

use super::{
    CLIENT_LIST, UNRELATED_NAME,
    field_client::{ClientOutput, FieldClient},
    field_testbed::FieldTestbed,
    programs_directory,
    registry_content::{MEDIA_BYTES, MEDIA_HTML, RegistryContent, sha256_hex},
};

/// The host of the package index.
pub(crate) const INDEX_HOST: &str = "pypi.org";
/// The host of the package files.
pub(crate) const FILES_HOST: &str = "files.pythonhosted.org";
/// The package's only file.
const WHEEL_FILE: &str = "tiny_field-1.0.0-py3-none-any.whl";

/// Adds the package to the index.
pub(crate) fn add_wheel(goods: &mut RegistryContent) -> Result<()> {
    let wheel = goods.archive("wheel")?;
    let url = format!("https://{FILES_HOST}/packages/{WHEEL_FILE}#sha256={}", sha256_hex(&wheel));
    let page = format!("<!doctype html><a href=\"{url}\">{WHEEL_FILE}</a>\n");
    goods.add_page(&format!("{INDEX_HOST}/simple/tiny-field/"), MEDIA_HTML, page);
    goods.add_page(&format!("{FILES_HOST}/packages/{WHEEL_FILE}"), MEDIA_BYTES, wheel);
    Ok(())
}

/// Installs the package.
#[track_caller]
pub(crate) fn pip_install(pip: &FieldClient<'_>) -> ClientOutput {
    let python = E2bSdk::Python.interpreter().or_fail("looking for Python");
    let arguments = ["-m", "pip", "install", "--no-deps", "--target", "packages", "tiny-field"];
    let variables = [
        ("PIP_CERT", pip.ca_file().into_os_string()),
        ("PIP_CONFIG_FILE", "/dev/null".into()),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1".into()),
        ("PIP_RETRIES", "1".into()), // five retries take 8 s
    ];
    pip.run(python, &arguments, &variables.each_ref().map(|(name, value)| (*name, &**value)))
}

#[test]
fn pip_installs_a_wheel() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[INDEX_HOST, FILES_HOST]);
    let pip = FieldClient::new(&sandbox);
    pip_install(&pip).assert_succeeded();
    assert_eq!(pip.read_file("packages/tiny_field/__init__.py"), "WORD = 'from the wheel'\n");
}

#[test]
fn pip_says_that_a_name_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[INDEX_HOST, FILES_HOST]);
    sandbox.allow_only(&[FILES_HOST]);
    pip_install(&FieldClient::new(&sandbox)).assert_failed_with_denial();
}

#[test]
fn libraries_fetch_what_is_allowed_and_say_what_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &["api.openai.com", UNRELATED_NAME]);
    let client = FieldClient::new(&sandbox);
    let python = E2bSdk::Python.interpreter().or_fail("looking for Python");
    let urls = ["http://api.openai.com/", "https://api.openai.com/"];
    let refused = [format!("http://{UNRELATED_NAME}/"), format!("https://{UNRELATED_NAME}/")];
    let program = programs_directory().join("fetch.py").to_string_lossy().into_owned();
    let arguments = [&[&*program], &urls[..], &refused.each_ref().map(|url| &**url)].concat();
    let ran = client.run(python, &arguments, &[("SSL_CERT_FILE", client.ca_file().as_os_str())]);
    ran.assert_succeeded();
    for library in ["by_urllib", "by_httpx"] {
        let http2 = if library == "by_httpx" { "HTTP/2" } else { "HTTP/1.1" };
        for (url, version) in urls.iter().zip(["HTTP/1.1", http2]) {
            ran.assert_mentions(&format!("{library} {url} 200 {version} a page of api.openai.com"));
        }
        ran.line_starting_with(&format!("{library} {} ", refused[0])).assert_mentions("403");
        ran.line_starting_with(&format!("{library} {} ", refused[1])).assert_mentions_denial();
    }
}
