//! Node: npm and fetch.

use std::path::PathBuf;

use anyhow::Result;
use policy_testbed::{sdk::E2bSdk, testbed::OrFail as _};
use serde_json::json;

use super::{
    CLIENT_LIST, UNRELATED_NAME,
    field_client::{ClientOutput, FieldClient},
    field_testbed::FieldTestbed,
    programs_directory,
    registry_content::{MEDIA_BYTES, MEDIA_JSON, RegistryContent},
};

/// The host of the registry, which also serves the packages.
pub(crate) const REGISTRY_HOST: &str = "registry.npmjs.org";

/// Adds the package to the registry.
pub(crate) fn add_package(goods: &mut RegistryContent) -> Result<()> {
    let path = "tiny-field/-/tiny-field-1.0.0.tgz";
    let dist = json!({ "tarball": format!("https://{REGISTRY_HOST}/{path}") });
    let version = json!({ "name": "tiny-field", "version": "1.0.0", "dist": dist });
    let package = json!({
        "name": "tiny-field",
        "dist-tags": { "latest": "1.0.0" },
        "versions": { "1.0.0": version },
    });
    goods.add_page(&format!("{REGISTRY_HOST}/tiny-field"), MEDIA_JSON, package.to_string());
    goods.add_page(&format!("{REGISTRY_HOST}/{path}"), MEDIA_BYTES, goods.archive("tarball")?);
    Ok(())
}

#[track_caller]
fn node_path() -> PathBuf {
    E2bSdk::JavaScript.interpreter().or_fail("looking for Node")
}

/// Installs the package.
#[track_caller]
pub(crate) fn npm_install(npm: &FieldClient<'_>) -> ClientOutput {
    // npm is next to `bin/node`.
    let node = node_path();
    let directory = node.parent().and_then(|bin| bin.parent()).or_fail("Node's directory");
    let program = directory.join("lib/node_modules/npm/bin/npm-cli.js");
    let program = program.to_string_lossy().into_owned();
    npm.write_file("package.json", "{}");
    let ca = npm.ca_file();
    let variables = [
        ("NODE_EXTRA_CA_CERTS", ca.as_os_str()),
        ("npm_config_audit", "false".as_ref()),
        // npm would retry for 70 s after any error.
        ("npm_config_fetch_retries", "0".as_ref()),
        ("npm_config_fund", "false".as_ref()),
        ("npm_config_update_notifier", "false".as_ref()),
        ("npm_config_globalconfig", "/dev/null".as_ref()),
    ];
    npm.run(&node, &[&*program, "install", "tiny-field"], &variables)
}

#[test]
fn npm_installs_a_tarball() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[REGISTRY_HOST]);
    let npm = FieldClient::new(&sandbox);
    npm_install(&npm).assert_succeeded();
    let installed = npm.read_file("node_modules/tiny-field/index.js");
    assert_eq!(installed, "module.exports = 'from the tarball';\n");
}

#[test]
fn npm_says_that_a_name_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[REGISTRY_HOST]);
    sandbox.allow_only(&[UNRELATED_NAME]);
    npm_install(&FieldClient::new(&sandbox)).assert_failed_with_denial();
}

#[test]
fn fetch_gets_what_is_allowed_and_says_what_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &["api.anthropic.com", UNRELATED_NAME]);
    let client = FieldClient::new(&sandbox);
    let program = programs_directory().join("fetch.mjs").to_string_lossy().into_owned();
    let (http, https) = (format!("http://{UNRELATED_NAME}/"), format!("https://{UNRELATED_NAME}/"));
    let urls = ["http://api.anthropic.com/", "https://api.anthropic.com/", &http, &https];
    let trusting = [("NODE_EXTRA_CA_CERTS", client.ca_file().into_os_string())];
    let trusting = trusting.each_ref().map(|(name, value)| (*name, &**value));
    let ran = client.run(node_path(), &[&[&*program], &urls[..]].concat(), &trusting);
    ran.assert_succeeded();
    for url in &urls[..2] {
        ran.assert_mentions(&format!("{url} 200 a page of api.anthropic.com"));
    }
    ran.line_starting_with(&format!("{http} ")).assert_mentions("403");
    ran.line_starting_with(&format!("{https} ")).assert_mentions_denial();
}
