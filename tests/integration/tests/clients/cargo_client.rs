//! cargo with the sparse index, its default.

use std::{env, ffi::OsStr, path::PathBuf};

use anyhow::Result;
use policy_testbed::testbed::OrFail as _;
use serde_json::json;

use super::{
    CLIENT_LIST, UNRELATED_NAME,
    field_client::{ClientOutput, FieldClient},
    field_testbed::FieldTestbed,
    registry_content::{MEDIA_BYTES, MEDIA_JSON, RegistryContent, sha256_hex},
};

/// The host of the index.
const INDEX_HOST: &str = "index.crates.io";
/// The host of the crate files.
const FILES_HOST: &str = "static.crates.io";
/// A package that depends on the crate.
const MANIFEST: &str = "[package]\nname = \"field\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\
                        [dependencies]\ntiny-field = \"1\"\n";

/// Adds the crate to the index.
pub(crate) fn add_crate(goods: &mut RegistryContent) -> Result<()> {
    let archive = goods.archive("crate")?;
    let entry = json!({
        "name": "tiny-field",
        "vers": "1.0.0",
        "deps": [],
        "cksum": sha256_hex(&archive),
        "features": {},
        "yanked": false,
    });
    let config =
        json!({ "dl": format!("https://{FILES_HOST}/crates"), "api": "https://crates.io" });
    goods.add_page(&format!("{INDEX_HOST}/config.json"), MEDIA_JSON, config.to_string());
    goods.add_page(&format!("{INDEX_HOST}/ti/ny/tiny-field"), MEDIA_BYTES, format!("{entry}\n"));
    goods.add_page(&format!("{FILES_HOST}/crates/tiny-field/1.0.0/download"), MEDIA_BYTES, archive);
    Ok(())
}

/// The cargo that runs these tests. rustup's proxy would search for toolchains in a home directory
/// that does not have them.
#[track_caller]
fn cargo_path() -> PathBuf {
    env::var_os("CARGO").or_fail("the variable CARGO, which `cargo test` sets").into()
}

#[track_caller]
fn cargo_fetch(cargo: &FieldClient<'_>) -> ClientOutput {
    cargo.write_file("Cargo.toml", MANIFEST);
    cargo.write_file("src/lib.rs", "");
    let (ca, home, program) = (cargo.ca_file(), cargo.home_path("cargo"), cargo_path());
    let rustc = program.with_file_name("rustc");
    let variables: [(&str, &OsStr); 4] = [
        ("CARGO_HTTP_CAINFO", ca.as_os_str()),
        ("CARGO_HOME", home.as_os_str()),
        ("CARGO_NET_RETRY", "0".as_ref()), // cargo takes a refusal for a network error
        ("RUSTC", rustc.as_os_str()),
    ];
    cargo.run(&program, &["fetch"], &variables)
}

#[test]
fn fetches_a_crate() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[INDEX_HOST, FILES_HOST]);
    let cargo = FieldClient::new(&sandbox);
    cargo_fetch(&cargo).assert_succeeded();
    assert!(
        cargo.read_file("Cargo.lock").contains("tiny-field"),
        "{}",
        cargo.read_file("Cargo.lock")
    );
    assert!(field.registry.was_host_requested(FILES_HOST));
}

#[test]
fn says_that_a_name_is_refused() {
    let field = FieldTestbed::shared();
    let sandbox = field.sandbox_with_list(CLIENT_LIST, &[INDEX_HOST, FILES_HOST]);
    sandbox.allow_only(&[UNRELATED_NAME]);
    cargo_fetch(&FieldClient::new(&sandbox)).assert_failed_with_denial();
}
