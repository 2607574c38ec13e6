//! Node: npm and fetch.

use std::path::PathBuf;

use anyhow::Result;
use policy_tests::{sdk::Sdk, stage::OrFail as _};
use serde_json::json;

use super::{
    AGENT, OTHER,
    client::{Client, Ran},
    goods::{BYTES, Goods, JSON},
    ground::Field,
    programs,
};

/// The registry, which has the packages, too.
const REGISTRY: &str = "registry.npmjs.org";

/// Adds the package to the registry.
pub fn stock(goods: &mut Goods) -> Result<()> {
    let path = "tiny-field/-/tiny-field-1.0.0.tgz";
    let dist = json!({ "tarball": format!("https://{REGISTRY}/{path}") });
    let version = json!({ "name": "tiny-field", "version": "1.0.0", "dist": dist });
    let package = json!({
        "name": "tiny-field",
        "dist-tags": { "latest": "1.0.0" },
        "versions": { "1.0.0": version },
    });
    goods.add(&format!("{REGISTRY}/tiny-field"), JSON, package.to_string());
    goods.add(&format!("{REGISTRY}/{path}"), BYTES, goods.archive("tarball")?);
    Ok(())
}

#[track_caller]
fn node() -> PathBuf {
    Sdk::JavaScript.interpreter().or_fail("looking for Node")
}

#[track_caller]
fn install(npm: &Client<'_>) -> Ran {
    // npm is beside `bin/node`.
    let node = node();
    let directory = node.parent().and_then(|bin| bin.parent()).or_fail("Node's directory");
    let program = directory.join("lib/node_modules/npm/bin/npm-cli.js");
    let program = program.to_string_lossy().into_owned();
    npm.write("package.json", "{}");
    let ca = npm.ca();
    let variables = [
        ("NODE_EXTRA_CA_CERTS", ca.as_os_str()),
        ("npm_config_audit", "false".as_ref()),
        // Whatever the error is, it would try again for 70 s.
        ("npm_config_fetch_retries", "0".as_ref()),
        ("npm_config_fund", "false".as_ref()),
        ("npm_config_update_notifier", "false".as_ref()),
        ("npm_config_globalconfig", "/dev/null".as_ref()),
    ];
    npm.run(&node, &[&*program, "install", "tiny-field"], &variables)
}

#[test]
fn npm_installs_a_tarball() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[REGISTRY]);
    let npm = Client::new(&sandbox);
    install(&npm).succeeded();
    let installed = npm.read("node_modules/tiny-field/index.js");
    assert_eq!(installed, "module.exports = 'from the tarball';\n");
}

#[test]
fn npm_says_that_a_name_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[REGISTRY]);
    sandbox.may_only_reach(&[OTHER]);
    install(&Client::new(&sandbox)).failed_with_denial();
}

#[test]
fn fetch_gets_what_is_allowed_and_says_what_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &["api.anthropic.com", OTHER]);
    let client = Client::new(&sandbox);
    let program = programs().join("fetch.mjs").to_string_lossy().into_owned();
    let (http, https) = (format!("http://{OTHER}/"), format!("https://{OTHER}/"));
    let urls = ["http://api.anthropic.com/", "https://api.anthropic.com/", &http, &https];
    let trusting = [("NODE_EXTRA_CA_CERTS", client.ca().into_os_string())];
    let trusting = trusting.each_ref().map(|(name, value)| (*name, &**value));
    let ran = client.run(node(), &[&[&*program], &urls[..]].concat(), &trusting);
    ran.succeeded();
    for url in &urls[..2] {
        ran.says(&format!("{url} 200 a page of api.anthropic.com"));
    }
    ran.line(&format!("{http} ")).says("403");
    ran.line(&format!("{https} ")).says_denial();
}
