//! cargo, with the sparse index that it has by default.

use std::{env, ffi::OsStr, path::PathBuf};

use anyhow::Result;
use policy_tests::stage::OrFail as _;
use serde_json::json;

use super::{
    AGENT, OTHER,
    client::{Client, Ran},
    goods::{BYTES, Goods, JSON, sha256},
    ground::Field,
};

/// The index of crates.
const INDEX: &str = "index.crates.io";
/// Where the crates are.
const FILES: &str = "static.crates.io";
/// A package that needs the crate.
const MANIFEST: &str = "[package]\nname = \"field\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\
                        [dependencies]\ntiny-field = \"1\"\n";

/// Adds the crate to the index.
pub fn stock(goods: &mut Goods) -> Result<()> {
    let archive = goods.archive("crate")?;
    let entry = json!({
        "name": "tiny-field",
        "vers": "1.0.0",
        "deps": [],
        "cksum": sha256(&archive),
        "features": {},
        "yanked": false,
    });
    let config = json!({ "dl": format!("https://{FILES}/crates"), "api": "https://crates.io" });
    goods.add(&format!("{INDEX}/config.json"), JSON, config.to_string());
    goods.add(&format!("{INDEX}/ti/ny/tiny-field"), BYTES, format!("{entry}\n"));
    goods.add(&format!("{FILES}/crates/tiny-field/1.0.0/download"), BYTES, archive);
    Ok(())
}

/// The cargo that runs these tests: rustup's would look for its toolchains in a home that it has not.
#[track_caller]
fn program() -> PathBuf {
    env::var_os("CARGO").or_fail("the variable CARGO, which `cargo test` sets").into()
}

#[track_caller]
fn fetch(cargo: &Client<'_>) -> Ran {
    cargo.write("Cargo.toml", MANIFEST);
    cargo.write("src/lib.rs", "");
    let (ca, home, program) = (cargo.ca(), cargo.path("cargo"), program());
    let rustc = program.with_file_name("rustc");
    let variables: [(&str, &OsStr); 4] = [
        ("CARGO_HTTP_CAINFO", ca.as_os_str()),
        ("CARGO_HOME", home.as_os_str()),
        ("CARGO_NET_RETRY", "0".as_ref()), // it takes a refusal for a fault of the network
        ("RUSTC", rustc.as_os_str()),
    ];
    cargo.run(&program, &["fetch"], &variables)
}

#[test]
fn fetches_a_crate() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[INDEX, FILES]);
    let cargo = Client::new(&sandbox);
    fetch(&cargo).succeeded();
    assert!(cargo.read("Cargo.lock").contains("tiny-field"), "{}", cargo.read("Cargo.lock"));
    assert!(field.origin.was_asked_for(FILES));
}

#[test]
fn says_that_a_name_is_refused() {
    let field = Field::shared();
    let sandbox = field.sandbox(AGENT, &[INDEX, FILES]);
    sandbox.may_only_reach(&[OTHER]);
    fetch(&Client::new(&sandbox)).failed_with_denial();
}
