//! Rules for the source tree that neither rustc nor clippy checks: type names are unique in their
//! crate, and the agent's modules have no circular dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::host;

/// Keywords before a type's name. An indented `type` is an associated type.
const TYPE_KEYWORDS: [&str; 5] = ["struct", "enum", "union", "trait", "type"];

/// Names of the prelude that a type must not shadow.
const PRELUDE: [&str; 12] = [
    "AsMut", "AsRef", "Box", "Clone", "Default", "Drop", "From", "Into", "Iterator", "Option",
    "String", "Vec",
];

/// Module dependencies: for each module, the modules that it imports, each with one file that
/// imports it.
type Imports = BTreeMap<String, BTreeMap<String, PathBuf>>;

struct SourceFile {
    path: PathBuf,
    text: String,
}

/// Checks all rules.
///
/// # Errors
/// A rule is broken; the error names the files.
pub(crate) fn check() -> Result<()> {
    let root = host::repository_root();
    let agent = root.join("policy-agent/src");
    let (mut problems, mut circular) = (Vec::new(), Vec::new());
    for directory in crates(root)? {
        let files = read_sources(&directory)?;
        problems.extend(repeated_types(&files));
        if directory == agent {
            circular = circles(&imports(&directory, &files));
        }
    }
    problems.extend(circular);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

/// The source directories of all crates. Each directory below a package's `tests/` is a crate, too.
fn crates(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut packages: Vec<PathBuf> = subdirectories(root)?;
    packages.extend(subdirectories(&root.join("tests"))?);
    for package in packages.iter().filter(|package| package.join("Cargo.toml").is_file()) {
        found.push(package.join("src"));
        found.extend(subdirectories(&package.join("tests"))?);
    }
    found.retain(|directory| directory.is_dir());
    Ok(found)
}

/// The subdirectories of a directory, sorted. Empty if there is no such directory.
fn subdirectories(directory: &Path) -> Result<Vec<PathBuf>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let reading = || format!("reading {}", directory.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(reading)? {
        paths.push(entry.with_context(reading)?.path());
    }
    paths.retain(|path| path.is_dir());
    paths.sort();
    Ok(paths)
}

fn read_sources(directory: &Path) -> Result<Vec<SourceFile>> {
    let mut paths = host::files_below(directory)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path);
        Ok(SourceFile { text: text.with_context(|| format!("reading {}", path.display()))?, path })
    };
    paths.into_iter().map(read).collect()
}

fn repeated_types(files: &[SourceFile]) -> Vec<String> {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for SourceFile { path, text } in files {
        for (number, line) in text.lines().enumerate() {
            if let Some(name) = defined_type(line) {
                let place = format!("{}:{}", path.display(), number + 1);
                places.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    let problem = |(name, places): (&String, &Vec<String>)| {
        if PRELUDE.contains(&name.as_str()) {
            Some(format!("type `{name}` hides a name of the prelude: {}", places.join(", ")))
        } else if places.len() > 1 {
            Some(format!("type `{name}` is defined more than once: {}", places.join(", ")))
        } else {
            None
        }
    };
    places.iter().filter_map(problem).collect()
}

/// The name of the type that a line of formatted source defines.
fn defined_type(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().peekable();
    words.next_if(|word| *word == "pub" || word.starts_with("pub("));
    words.next_if(|word| *word == "unsafe");
    let keyword = words.next().filter(|word| TYPE_KEYWORDS.contains(word))?;
    if keyword == "type" && line.starts_with(' ') {
        return None;
    }
    let rest = words.next()?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let name = &rest[..end];
    name.starts_with(|c: char| c.is_uppercase()).then_some(name)
}

fn circles(imports: &Imports) -> Vec<String> {
    let mut problems = Vec::new();
    for (module, imported) in imports {
        for (other, path) in imported {
            if reachable(imports, other).contains(module.as_str()) {
                let path = path.display();
                problems.push(format!("`{module}` and `{other}` import each other: see {path}"));
            }
        }
    }
    problems
}

fn reachable<'a>(imports: &'a Imports, from: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![from];
    while let Some(module) = waiting.pop() {
        if found.insert(module) {
            waiting.extend(imports.get(module).into_iter().flat_map(BTreeMap::keys).map(|m| &**m));
        }
    }
    found
}

/// The imports between the top-level modules of the crate in `directory`, without its tests.
fn imports(directory: &Path, files: &[SourceFile]) -> Imports {
    let mut imports = Imports::new();
    for SourceFile { path, text } in files {
        let relative = path.strip_prefix(directory).unwrap_or(path);
        let module = relative.iter().next().and_then(|part| Path::new(part).file_stem());
        let Some(module) = module.and_then(|stem| stem.to_str()) else { continue };
        if ["lib", "main", "fuzz"].contains(&module) || is_test(relative) {
            continue;
        }
        for other in imported(&without_tests(text)) {
            if other != module {
                let by = imports.entry(module.to_owned()).or_default();
                by.entry(other).or_insert_with(|| path.clone());
            }
        }
    }
    imports
}

fn is_test(path: &Path) -> bool {
    path.iter()
        .any(|part| ["tests", "tests.rs", "fuzz", "fuzz.rs"].iter().any(|test| part == *test))
}

/// The text of a file up to its unit tests, without comments.
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules in paths that begin with `crate::`, including those in groups.
fn imported(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            Some(group) => modules.extend(first_parts(group)),
            None => modules.extend(identifier(path)),
        }
    }
    modules
}

/// The first part of each path in a group, up to the closing brace.
fn first_parts(group: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let (mut depth, mut starts) = (0_u32, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts = true,
            c if starts && !c.is_whitespace() => {
                parts.extend(identifier(&group[at..]));
                starts = false;
            }
            _ => {}
        }
    }
    parts
}

/// The lower-case module name at the start of a path.
fn identifier(path: &str) -> Option<String> {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    let name = &path[..end];
    let is_module = name.starts_with(|c: char| c.is_lowercase()) && path[end..].starts_with("::");
    is_module.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_their_definitions() {
        assert_eq!(defined_type("pub struct Policy {"), Some("Policy"));
        assert_eq!(defined_type("    pub(super) enum Verdict<'a> {"), Some("Verdict"));
        assert_eq!(defined_type("type Digest = [u8; 16];"), Some("Digest"));
        assert_eq!(defined_type("pub unsafe trait Pod: Copy {"), Some("Pod"));
        assert_eq!(defined_type("    type Error = Infallible;"), None);
        assert_eq!(defined_type("impl Policy {"), None);
        assert_eq!(defined_type("// struct Policy"), None);
    }

    #[test]
    fn imports_are_found_in_groups() {
        let code = "use crate::{\n    agent::{Agent, x},\n    policy::Policy,\n};\nlet a = crate::net::f();";
        let modules: Vec<_> = imported(code).into_iter().collect();
        assert_eq!(modules, ["agent", "net", "policy"]);
    }

    #[test]
    fn circles_go_through_other_modules() {
        let import = |name: &str| BTreeMap::from([(name.to_owned(), PathBuf::new())]);
        let of = |from: &str, to: &str| (from.to_owned(), import(to));
        let imports = Imports::from([of("a", "b"), of("b", "c"), of("c", "a"), of("d", "a")]);
        assert!(reachable(&imports, "b").contains("a"));
        assert!(!reachable(&imports, "a").contains("d"));
    }
}
