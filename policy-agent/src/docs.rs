//! Documents that are generated from the code. A test compares each with the current output, and
//! rewrites it if `UPDATE_DOCS=1` is set.

mod kernel_features;
mod kubernetes;
mod reasons;

use std::{env, fs, path::Path};

/// Compares a document of `docs/` with its expected content.
#[track_caller]
fn is_current(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        fs::write(&path, expected).expect("writing the document");
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(expected.lines()).position(|(is, should)| is != should);
    let line = differs.unwrap_or_else(|| text.lines().count().min(expected.lines().count())) + 1;
    assert!(
        text == expected,
        "docs/{name} differs from line {line} on: run `UPDATE_DOCS=1 cargo test --lib -- docs::`"
    );
}
