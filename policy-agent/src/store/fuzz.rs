//! State files, as broken as chance makes them: each is read or set aside, and the others are served.

use std::fs;

use proptest::prelude::*;

use super::Store;
use crate::fuzz::{few, mutated};

const PASSWORD: &str = "hunter2Secret";

const GOOD: &str = r#"{"version":1,"slot":7,"sandbox":{"sandboxID":"web1","interface":"tap0",
"netns":"/run/netns/a","addresses":["10.11.0.2","fd00::2"],"mac":"02:fc:00:00:00:05",
"network":{"allowOut":["b.example"],"denyOut":["0.0.0.0/0"],"egressProxy":{"address":"p:1080",
"username":"u","password":"hunter2Secret"}}},"token":"hunter2Secret",
"started":"2026-11-25T10:00:00Z","lease":{"ends":"2026-11-25T11:00:00.5Z","origin":
{"template_id":"base","metadata":{"a":"b"}},"idempotency":{"key":"k","wish":"w"}}}"#;

fn store(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Store) {
    let state = tempfile::tempdir().expect("a directory");
    let store = Store::open(state.path()).expect("a store");
    for (name, text) in files {
        fs::write(state.path().join("sandboxes").join(name), text).expect("written");
    }
    (state, store)
}

fn try_it(text: &[u8]) -> Result<(), TestCaseError> {
    let other = GOOD.replace("web1", "web2");
    let (_state, store) = store(&[("web1.json", text), ("web2.json", other.as_bytes())]);
    let loaded = store.load().expect("a list");
    prop_assert_eq!(loaded.entries.len() + loaded.broken.len(), 2);
    prop_assert_eq!(
        loaded.entries.last().map(|entry| entry.spec.sandbox_id.as_str()),
        Some("web2")
    );
    for (path, error) in &loaded.broken {
        prop_assert!(path.ends_with("web1.broken") && path.exists());
        prop_assert!(!format!("{error:#}").contains(PASSWORD), "{error:#}");
    }
    // The other is there, and the disk is slow.
    for entry in loaded.entries.iter().filter(|entry| entry.spec.sandbox_id.as_str() == "web1") {
        store.save(entry).expect("saved");
    }
    prop_assert_eq!(store.load().expect("a list").entries, loaded.entries);
    Ok(())
}

#[test]
fn the_good_one_is_good() {
    let (_state, store) = store(&[("web1.json", GOOD.as_bytes())]);
    assert_eq!(store.load().expect("a list").entries.len(), 1);
}

#[test]
fn no_depth_is_too_much() {
    try_it("{\"sandbox\":[".repeat(50_000).as_bytes()).expect("told");
}

proptest! {
    #![proptest_config(few(128))]

    #[test]
    fn a_mutated_file_is_read_or_set_aside(text in mutated(GOOD)) {
        try_it(&text)?;
    }

    #[test]
    fn arbitrary_bytes_are_set_aside(text in prop::collection::vec(any::<u8>(), 0..200)) {
        try_it(&text)?;
    }
}
