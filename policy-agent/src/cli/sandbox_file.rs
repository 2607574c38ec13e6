//! The sandboxes in the files of `-f`, as JSON or YAML.

use std::{
    collections::HashMap,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value};

use super::cli_failure::CliFailure;
use crate::policy::{SandboxSpec, parse_json, parse_manifest, parse_yaml_manifest};

/// The extensions of the files that a directory is read for.
const JSON_EXTENSIONS: [&str; 3] = ["json", "jsonl", "ndjson"];
const YAML_EXTENSIONS: [&str; 2] = ["yaml", "yml"];

/// What the option `-f` of `check` and `apply` takes.
pub(super) const FILES_HELP: &str = "Sandboxes as JSON (one object, an array, or JSON lines) or YAML \
                                     (documents); a directory stands for the files in it that end in \
                                     .json, .jsonl, .ndjson, .yaml or .yml; - is standard input";

/// A sandbox and the file that it is from.
pub(super) struct FileSandbox {
    /// As in messages: the path, or `standard input`.
    pub(super) file: String,
    pub(super) spec: SandboxSpec,
}

impl FileSandbox {
    /// Its ID and the file that it is from.
    pub(super) fn file_by_id(&self) -> (String, String) {
        (self.spec.sandbox_id.to_string(), self.file.clone())
    }
}

/// Reads the sandboxes in all files. No two of them have the same ID.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<FileSandbox>, CliFailure> {
    let mut sandboxes = Vec::<FileSandbox>::new();
    let mut files_by_id = HashMap::new();
    for path in paths.iter().map(|path| files_at(path)).collect::<Result<Vec<_>, _>>()?.concat() {
        let file = file_name(&path);
        for spec in read_sandboxes(&path)? {
            let id = spec.sandbox_id.clone();
            if let Some(other) =
                files_by_id.insert(id.clone(), file.clone()).filter(|other| *other != file)
            {
                let problem = format!("{file}: sandboxID: \"{id}\": is also in {other}");
                return Err(CliFailure::BadInput(anyhow!(problem)));
            }
            sandboxes.push(FileSandbox { file: file.clone(), spec });
        }
    }
    Ok(sandboxes)
}

/// The file at a path, or the files in the directory there, sorted by their names.
fn files_at(path: &Path) -> Result<Vec<PathBuf>, CliFailure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let listed = fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut files = listed
        .with_context(|| format!("cannot list {}", path.display()))
        .map_err(CliFailure::BadInput)?;
    files.retain(|file| {
        has_extension(file, &JSON_EXTENSIONS) || has_extension(file, &YAML_EXTENSIONS)
    });
    files.sort();
    if files.is_empty() {
        let problem = format!("{}: no file in it ends in .json or .yaml", path.display());
        return Err(CliFailure::BadInput(anyhow!(problem)));
    }
    Ok(files)
}

/// Reads a file with the keys of one sandbox, of which some may be missing.
pub(super) fn read_sandbox_fields(path: &Path) -> Result<(String, Map<String, Value>), CliFailure> {
    let text = read_text(path).map_err(CliFailure::BadInput)?;
    let name = file_name(path);
    let wrong =
        |problem: &dyn std::fmt::Display| CliFailure::BadInput(anyhow!("{name}: {problem}"));
    let fields = match is_yaml(path, &text) {
        true => serde_yaml_ng::from_str(&text).map_err(|error| wrong(&error))?,
        false => parse_json(text.as_bytes()).map_err(|error| wrong(&error))?,
    };
    Ok((name, fields))
}

/// Reads the sandboxes in a file.
pub(super) fn read_sandboxes(path: &Path) -> Result<Vec<SandboxSpec>, CliFailure> {
    let text = read_text(path).map_err(CliFailure::BadInput)?;
    let parsed =
        if is_yaml(path, &text) { parse_yaml_manifest(&text) } else { parse_manifest(&text) };
    parsed.map_err(|invalid| CliFailure::BadInput(anyhow!("{}: {invalid}", file_name(path))))
}

fn is_yaml(path: &Path, text: &str) -> bool {
    let is_stdin = path == Path::new("-");
    has_extension(path, &YAML_EXTENSIONS)
        || (is_stdin && !text.trim_start().starts_with(['{', '[']))
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known))
}

/// How messages name a file.
fn file_name(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    }
}

/// Reads a file, or standard input for `-`.
pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    if path != Path::new("-") {
        return fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).context("cannot read the standard input")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(paths: &[&Path]) -> String {
        let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).collect();
        match read_all(&paths) {
            Err(CliFailure::BadInput(error)) => error.to_string(),
            other => panic!("{:?}", other.map(|read| read.len()).map_err(CliFailure::into_error)),
        }
    }

    #[test]
    fn a_directory_stands_for_its_files_in_their_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let yaml = |id: &str, last: u8| {
            format!("sandboxID: {id}\ninterface: tap{id}\naddresses: [10.11.0.{last}]\n")
        };
        fs::write(at("b.yaml"), format!("{}---\n{}", yaml("b", 2), yaml("c", 3))).expect("written");
        let json = r#"{"sandboxID":"a","interface":"tapa","addresses":["10.11.0.1"]}"#;
        fs::write(at("a.json"), json).expect("written");
        fs::write(at("notes.txt"), "no sandbox").expect("written");
        let read = read_all(&[directory.path().to_owned()]);
        let read = read.unwrap_or_else(|failure| panic!("{}", failure.into_error()));
        let ids: Vec<_> = read.iter().map(|it| it.spec.sandbox_id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert!(read[0].file.ends_with("a.json") && read[2].file.ends_with("b.yaml"));
        fs::write(at("d.yml"), yaml("a", 4)).expect("written");
        let twice = problem(&[directory.path()]);
        assert!(twice.contains("d.yml: sandboxID: \"a\": is also in"), "{twice}");
    }

    #[test]
    fn mistakes_name_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let empty = problem(&[directory.path()]);
        assert!(empty.contains("no file in it ends in .json or .yaml"), "{empty}");
        let missing = directory.path().join("missing.yaml");
        assert!(problem(&[&missing]).contains("missing.yaml"));
        let typo = directory.path().join("typo.yaml");
        fs::write(&typo, "sandboxID: a\ninterfase: tap0\naddresses: [10.11.0.1]\n")
            .expect("written");
        let said = problem(&[&typo]);
        assert!(said.contains("typo.yaml: interfase: unknown field"), "{said}");
    }
}
