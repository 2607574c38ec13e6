//! Randomly corrupted state files. Each is read or set aside, and the others are still loaded.

use std::fs;

use proptest::prelude::*;

use super::SandboxStore;
use crate::fuzz::{cases_or, mutated_bytes};

const PASSWORD: &str = "hunter2Secret";

const VALID_FILE: &str = r#"{"version":1,"slot":7,"sandbox":{"sandboxID":"web1","interface":"tap0",
"netns":"/run/netns/a","addresses":["10.11.0.2","fd00::2"],"mac":"02:fc:00:00:00:05",
"network":{"allowOut":["b.example"],"denyOut":["0.0.0.0/0"],"egressProxy":{"address":"p:1080",
"username":"u","password":"hunter2Secret"}}},"token":"hunter2Secret",
"started":"2026-11-25T10:00:00Z","lease":{"ends":"2026-11-25T11:00:00.5Z","origin":
{"template_id":"base","metadata":{"a":"b"}},"idempotency":{"key":"k","wish":"w"}}}"#;

fn store_with_files(files: &[(&str, &[u8])]) -> (tempfile::TempDir, SandboxStore) {
    let state = tempfile::tempdir().expect("a directory");
    let store = SandboxStore::open(state.path()).expect("a store");
    for (name, text) in files {
        fs::write(state.path().join("sandboxes").join(name), text).expect("written");
    }
    (state, store)
}

fn check_load(text: &[u8]) -> Result<(), TestCaseError> {
    let other = VALID_FILE.replace("web1", "web2");
    let (_state, store) = store_with_files(&[("web1.json", text), ("web2.json", other.as_bytes())]);
    let loaded = store.load().expect("a list");
    prop_assert_eq!(loaded.records.len() + loaded.broken.len(), 2);
    prop_assert_eq!(
        loaded.records.last().map(|entry| entry.spec.sandbox_id.as_str()),
        Some("web2")
    );
    for (path, error) in &loaded.broken {
        prop_assert!(path.ends_with("web1.broken") && path.exists());
        prop_assert!(!format!("{error:#}").contains(PASSWORD), "{error:#}");
    }
    // Saves only the record under test. The other one is on disk already, and the disk is slow.
    for record in loaded.records.iter().filter(|entry| entry.spec.sandbox_id.as_str() == "web1") {
        store.save(record).expect("saved");
    }
    prop_assert_eq!(store.load().expect("a list").records, loaded.records);
    Ok(())
}

#[test]
fn the_good_one_is_good() {
    let (_state, store) = store_with_files(&[("web1.json", VALID_FILE.as_bytes())]);
    assert_eq!(store.load().expect("a list").records.len(), 1);
}

#[test]
fn no_depth_is_too_much() {
    check_load("{\"sandbox\":[".repeat(50_000).as_bytes()).expect("told");
}

proptest! {
    #![proptest_config(cases_or(128))]

    #[test]
    fn a_mutated_file_is_read_or_set_aside(text in mutated_bytes(VALID_FILE)) {
        check_load(&text)?;
    }

    #[test]
    fn arbitrary_bytes_are_set_aside(text in prop::collection::vec(any::<u8>(), 0..200)) {
        check_load(&text)?;
    }
}
