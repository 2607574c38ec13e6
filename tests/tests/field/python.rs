//! Python: pip, urllib and httpx.

use anyhow::Result;
use policy_tests::{sdk::Sdk, stage::OrFail as _};

use super::{
    AGENT, OTHER,
    client::{Client, Ran},
    goods::{BYTES, Goods, HTML, sha256},
    ground::Field,
    programs,
};

/// The index of packages.
const INDEX: &str = "pypi.org";
/// Where the packages are.
const FILES: &str = "files.pythonhosted.org";
/// The package's only file.
const WHEEL: &str = "tiny_field-1.0.0-py3-none-any.whl";

/// Adds the package to the index.
pub fn stock(goods: &mut Goods) -> Result<()> {
    let wheel = goods.archive("wheel")?;
    let url = format!("https://{FILES}/packages/{WHEEL}#sha256={}", sha256(&wheel));
    let page = format!("<!doctype html><a href=\"{url}\">{WHEEL}</a>\n");
    goods.add(&format!("{INDEX}/simple/tiny-field/"), HTML, page);
    goods.add(&format!("{FILES}/packages/{WHEEL}"), BYTES, wheel);
    Ok(())
}

#[track_caller]
fn install(pip: &Client<'_>) -> Ran {
    let python = Sdk::Python.interpreter().or_fail("looking for Python");
    let arguments = ["-m", "pip", "install", "--no-deps", "--target", "packages", "tiny-field"];
    let variables = [
        ("PIP_CERT", pip.ca().into_os_string()),
        ("PIP_CONFIG_FILE", "/dev/null".into()),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1".into()),
        ("PIP_RETRIES", "1".into()), // five take 8 s
    ];
    pip.run(python, &arguments, &variables.each_ref().map(|(name, value)| (*name, &**value)))
}

#[test]
fn pip_installs_a_wheel() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[INDEX, FILES]);
    let pip = Client::new(&sandbox);
    install(&pip).succeeded();
    assert_eq!(pip.read("packages/tiny_field/__init__.py"), "WORD = 'from the wheel'\n");
}

#[test]
fn pip_says_that_a_name_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[INDEX, FILES]);
    sandbox.may_only_reach(&[FILES]);
    install(&Client::new(&sandbox)).failed_with_denial();
}

#[test]
fn libraries_fetch_what_is_allowed_and_say_what_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &["api.openai.com", OTHER]);
    let client = Client::new(&sandbox);
    let python = Sdk::Python.interpreter().or_fail("looking for Python");
    let urls = ["http://api.openai.com/", "https://api.openai.com/"];
    let refused = [format!("http://{OTHER}/"), format!("https://{OTHER}/")];
    let program = programs().join("fetch.py").to_string_lossy().into_owned();
    let arguments = [&[&*program], &urls[..], &refused.each_ref().map(|url| &**url)].concat();
    let ran = client.run(python, &arguments, &[("SSL_CERT_FILE", client.ca().as_os_str())]);
    ran.succeeded();
    for library in ["by_urllib", "by_httpx"] {
        let http2 = if library == "by_httpx" { "HTTP/2" } else { "HTTP/1.1" };
        for (url, version) in urls.iter().zip(["HTTP/1.1", http2]) {
            ran.says(&format!("{library} {url} 200 {version} a page of api.openai.com"));
        }
        ran.line(&format!("{library} {} ", refused[0])).says("403");
        ran.line(&format!("{library} {} ", refused[1])).says_denial();
    }
}
