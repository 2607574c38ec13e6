use std::{fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

use super::*;

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec())
}

fn name(text: &str) -> SecretName {
    SecretName::parse(text).expect(text)
}

fn current(store: &SecretStore, of: &str) -> Option<String> {
    let value = store.current_value(&name(of))?;
    Some(String::from_utf8_lossy(value.reveal()).into_owned())
}

fn open(directory: &TempDir) -> SecretStore {
    SecretStore::open(directory.path()).expect("a store")
}

#[test]
fn a_secret_is_created_updated_and_deleted() {
    let store = SecretStore::default();
    let made = store.create(" Example ", &value("one"), SecretMetadata::new()).expect("created");
    assert_eq!((made.name.as_str(), made.version), ("example", 1));
    assert!(made.id.starts_with(SECRET_ID_PREFIX));
    let again = store.create("EXAMPLE", &value("x"), SecretMetadata::new());
    assert!(matches!(again, Err(SecretError::Exists(_))));
    assert_eq!(current(&store, "example").as_deref(), Some("one"));

    let metadata = SecretMetadata::from([("a".to_owned(), "b".to_owned())]);
    let updated = store.update("example", &value("two"), Some(metadata.clone())).expect("updated");
    assert_eq!((updated.version, &updated.id, &updated.metadata), (2, &made.id, &metadata));
    assert_eq!(store.update(&made.id, &value("three"), None).expect("updated").metadata, metadata);
    assert_eq!(current(&store, "example").as_deref(), Some("three"));
    assert_eq!(store.list().len(), 1);

    store.delete(&made.id).expect("deleted");
    assert_eq!(current(&store, "example"), None);
    for gone in ["example", &made.id, "sec_", "no name", ""] {
        assert!(matches!(store.get(gone), Err(SecretError::Unknown(_))), "{gone}");
        assert!(matches!(store.delete(gone), Err(SecretError::Unknown(_))), "{gone}");
    }
}

#[test]
fn what_is_wrong_is_named_and_values_are_not() {
    let store = SecretStore::default();
    let long = "s3cret".repeat(20_000);
    for (name, text, field) in [
        ("", "v", "name"),
        ("sec_x", "v", "name"),
        ("a b", "v", "name"),
        ("a", &long, "value"),
        ("a", "", "value"),
    ] {
        let error = store.create(name, &value(text), SecretMetadata::new()).expect_err(name);
        let message = error.to_string();
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
    }
    assert!(store.list().is_empty());
}

#[test]
fn secrets_outlive_the_agent_in_a_private_file() {
    let directory = TempDir::new().expect("a directory");
    let store = open(&directory);
    let made = store.create("a", &value("hunter2\r\n"), SecretMetadata::new()).expect("created");
    store.update("a", &value("hunter3"), None).expect("updated");
    store.create("b", &value("other"), SecretMetadata::new()).expect("created");
    store.delete("b").expect("deleted");
    drop(store);
    let files: Vec<_> = fs::read_dir(directory.path()).expect("files").flatten().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let mode = files[0].metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let store = open(&directory);
    assert_eq!(current(&store, "a").as_deref(), Some("hunter3"));
    assert_eq!(
        store.get("a").expect("known"),
        SecretInfo { version: 2, ..store.get(&made.id).expect("known") }
    );
    assert_eq!(store.list().len(), 1);
    assert!(!format!("{store:?}{:?}", store.list()).contains("hunter"));
}

#[test]
fn a_broken_file_is_set_aside() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("secrets.json");
    for text in ["", "{", r#"{"version":2,"secrets":[]}"#] {
        fs::write(&path, text).expect("written");
        assert!(open(&directory).list().is_empty());
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(path.with_extension("json.broken")).expect("kept"), text);
    }
    fs::write(&path, "").expect("written");
    SecretStore::remove_all(directory.path()).expect("removed");
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
    SecretStore::remove_all(directory.path()).expect("nothing to remove");
}

#[test]
fn the_number_and_the_length_of_all_are_bounded() {
    let store = SecretStore::default();
    let large = value(&"v".repeat(64 * 1024));
    for index in 0..256 {
        store.create(&format!("s{index}"), &large, SecretMetadata::new()).expect("created");
    }
    let more = store.create("more", &value("v"), SecretMetadata::new());
    assert!(matches!(more, Err(SecretError::TooMany(_))));
    store.update("s0", &value("v"), None).expect("updated");
    store.create("more", &value("v"), SecretMetadata::new()).expect("created");
}
