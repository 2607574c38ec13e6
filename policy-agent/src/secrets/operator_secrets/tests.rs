use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// The values by name.
fn values(secrets: &OperatorSecrets) -> Vec<(String, String)> {
    let secrets = secrets.secrets().values();
    let text = |value: &SecretValue| String::from_utf8_lossy(value.reveal()).into_owned();
    secrets.map(|secret| (secret.info.name.to_string(), text(&secret.value))).collect()
}

fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
    expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// A directory with a file and a directory of secrets.
struct Sources {
    place: TempDir,
    sources: SecretSources,
}

impl Sources {
    fn new() -> Self {
        let place = TempDir::new().expect("a directory");
        let (file, directory) = (place.path().join("secrets.toml"), place.path().join("mounted"));
        fs::create_dir(&directory).expect("a directory");
        fs::write(&file, "").expect("written");
        let sources = SecretSources { file: Some(file), directory: Some(directory) };
        Self { place, sources }
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.place.path().join(path), text).expect("written");
    }

    fn read(&self, before: &OperatorSecrets) -> OperatorSecrets {
        before.refreshed(&self.sources, true).expect("read")
    }
}

#[test]
fn the_file_precedes_the_directory() {
    let sources = Sources::new();
    sources.write("secrets.toml", "a = \"one\"\nB-2 = \"two\"\n");
    sources.write("mounted/a", "other");
    sources.write("mounted/c", "three\r\n");
    sources.write("mounted/d", "line\nline\n");
    sources.write("mounted/.hidden", "no");
    fs::create_dir(sources.place.path().join("mounted/..data")).expect("a directory");
    sources.write("mounted/..data/e", "five\n\n");
    symlink("..data/e", sources.place.path().join("mounted/e")).expect("a link");
    let read = sources.read(&OperatorSecrets::default());
    let expected =
        pairs([("a", "one"), ("b-2", "two"), ("c", "three"), ("d", "line\nline"), ("e", "five\n")]);
    assert_eq!(values(&read), expected);
    assert!(read.problems().is_empty(), "{:?}", read.problems());
    assert_eq!(read.secrets()[&SecretName::parse("a").expect("a name")].info.version, 1);
}

#[test]
fn a_broken_source_keeps_its_values() {
    let sources = Sources::new();
    sources.write("secrets.toml", "a = \"one\"");
    sources.write("mounted/b", "two");
    sources.write("mounted/c", "three");
    let before = sources.read(&OperatorSecrets::default());
    for broken in ["a = \"s3cret", "a = 1", "\"a b\" = \"s3cret\"", "a = \"\"", "a.b = \"s3cret\""]
    {
        sources.write("secrets.toml", broken);
        let after = sources.read(&before);
        assert_eq!(values(&after), values(&before), "{broken}");
        let problems = after.problems().join("\n");
        assert!(problems.contains("secrets.toml: ") && !problems.contains("s3cret"), "{problems}");
    }
    fs::remove_file(sources.place.path().join("secrets.toml")).expect("removed");
    sources.write("mounted/b", "");
    sources.write("mounted/c", &"s3cret".repeat(20_000));
    sources.write("mounted/not a name", "x");
    let after = sources.read(&before);
    assert_eq!(values(&after), values(&before));
    assert_eq!(after.problems().len(), 4, "{:?}", after.problems());
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    let sources = Sources::new();
    sources.write("mounted/a", "one");
    let first = sources.read(&OperatorSecrets::default());
    assert!(first.refreshed(&sources.sources, false).is_none());
    sources.write("mounted/a", "other");
    let second = first.refreshed(&sources.sources, false).expect("changed");
    assert_eq!(values(&second), pairs([("a", "other")]));
    let info = |read: &OperatorSecrets| read.secrets().values().next().expect("one").info.clone();
    assert_eq!((info(&second).version, info(&second).id), (2, info(&first).id));
    fs::remove_file(sources.place.path().join("mounted/a")).expect("removed");
    let third = second.refreshed(&sources.sources, false).expect("changed");
    assert!(third.secrets().is_empty() && third.problems().is_empty());
}
