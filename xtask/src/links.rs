//! Checks the links between documents. A link needs an existing file and heading, a path in
//! backticks needs an existing file, and a test in backticks (`module::name`) needs an existing
//! function.
//!
//! Links to the web are not fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::{host, process};

/// The checked documents in the root directory. All documents in `docs/` are checked.
const TOP: [&str; 4] = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
/// The directory of the other documents.
const DOCS: &str = "docs";
/// File extensions that make a word in backticks a path.
const ENDINGS: [&str; 3] = [".rs", ".md", ".service"];

/// Checks all documents.
///
/// # Errors
/// Names every broken link, path and test.
pub(crate) fn check() -> Result<()> {
    let checkout = Checkout::read(host::repository_root())?;
    let problems = checkout.problems();
    if !problems.is_empty() {
        bail!("the documents name what is not there:\n  {}", problems.join("\n  "));
    }
    process::report(&format!("links of {} documents lead somewhere", checkout.documents.len()));
    Ok(())
}

/// The documents and what they can refer to.
#[derive(Default)]
struct Checkout {
    /// Paths of all files, relative to the root, with `/` as the separator.
    files: BTreeSet<String>,
    /// Names of all functions.
    functions: BTreeSet<String>,
    /// The documents by path.
    documents: BTreeMap<String, Document>,
}

/// The references and link targets in a document.
#[derive(Default)]
struct Document {
    /// Anchors of its headings.
    anchors: BTreeSet<String>,
    links: Vec<Mention>,
    /// Words in backticks.
    code: Vec<Mention>,
}

/// A reference and its line number.
struct Mention {
    line: usize,
    text: String,
}

impl Checkout {
    fn read(root: &Path) -> Result<Self> {
        let mut checkout = Self::default();
        for path in host::files_below(root)? {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            checkout.files.insert(relative.to_string_lossy().into_owned());
        }
        let read = |path: &str| {
            fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
        };
        for path in checkout.files.iter().filter(|path| path.ends_with(".rs")) {
            checkout.functions.extend(functions(&read(path)?));
        }
        let is_document = |path: &&String| {
            let in_docs = path.strip_prefix(DOCS).is_some_and(|rest| rest.starts_with('/'));
            (in_docs && path.ends_with(".md")) || TOP.contains(&path.as_str())
        };
        for path in checkout.files.iter().filter(is_document) {
            checkout.documents.insert(path.clone(), Document::parse(&read(path)?));
        }
        Ok(checkout)
    }

    /// All broken references, one line each.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (path, document) in &self.documents {
            let mut add = |mention: &Mention, problem: Option<String>| {
                problems.extend(problem.map(|text| format!("{path}:{}: {text}", mention.line)));
            };
            for link in &document.links {
                add(link, self.problem_of_link(path, &link.text));
            }
            for code in &document.code {
                add(code, self.problem_of_code(path, &code.text));
            }
        }
        problems
    }

    fn problem_of_link(&self, from: &str, link: &str) -> Option<String> {
        if link.contains("://") || link.starts_with("mailto:") {
            return None;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { Some(from.to_owned()) } else { resolve(from, path) };
        let Some(target) = target.filter(|target| self.is_there(target)) else {
            return Some(format!("{link}: there is no such file"));
        };
        if anchor.is_empty() {
            return None;
        }
        match self.documents.get(&target) {
            Some(document) if document.anchors.contains(anchor) => None,
            Some(_) => Some(format!("{link}: {target} has no such heading")),
            None => Some(format!("{link}: {target} is not a document whose headings are known")),
        }
    }

    fn problem_of_code(&self, from: &str, code: &str) -> Option<String> {
        if let Some(name) = test_name(code) {
            let known = self.functions.contains(name);
            return (!known).then(|| format!("`{code}`: there is no function {name}"));
        }
        let path = code.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if path.is_empty() || path.starts_with('/') || !path.chars().all(plain) {
            return None;
        }
        let is_file = ENDINGS.iter().any(|ending| path.ends_with(ending));
        let top = path.split_once('/').map(|(top, _)| top);
        let is_source = |top| self.is_there(top) && !host::BUILT_DIRECTORIES.contains(&top);
        let is_path = top.is_some_and(is_source);
        if !(is_file || is_path) {
            return None;
        }
        // A path may omit leading directories: `proxy/tls.rs`.
        let ends = |file: &String| {
            file.strip_suffix(path).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        let known = self.is_there(path)
            || resolve(from, path).is_some_and(|path| self.is_there(&path))
            || (is_file && self.files.iter().any(ends));
        (!known).then(|| format!("`{code}`: there is no such file"))
    }

    /// Returns whether the path is a file or directory.
    fn is_there(&self, path: &str) -> bool {
        let inside = format!("{path}/");
        self.files.contains(path) || self.files.iter().any(|file| file.starts_with(&inside))
    }
}

impl Document {
    fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut heading = None;
        let mut line = 1;
        let mut counted = 0;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            if range.start > counted {
                line += text[counted..range.start].matches('\n').count();
                counted = range.start;
            }
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    document.add_anchor(&heading.take().unwrap_or_default());
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(Mention { line, text: dest_url.into_string() });
                }
                Event::Text(text) => heading.iter_mut().for_each(|heading| *heading += &text),
                Event::Code(text) => {
                    heading.iter_mut().for_each(|heading| *heading += &text);
                    document.code.push(Mention { line, text: text.into_string() });
                }
                _ => {}
            }
        }
        document
    }

    /// Adds the anchor that GitHub gives to a heading. The second of equal headings gets the suffix
    /// `-1`.
    fn add_anchor(&mut self, heading: &str) {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let slug: String = heading.trim().to_lowercase().chars().filter(kept).collect();
        let slug = slug.replace(' ', "-");
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let mut candidates = std::iter::once(slug.clone()).chain(numbered);
        let free = candidates.find(|candidate| !self.anchors.contains(candidate));
        self.anchors.extend(free);
    }
}

/// Resolves a link in the document `from`. `None` if it points outside the checkout.
fn resolve(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The function in `module::some_name`. Its name must contain an underscore: `a::b` may be an
/// address.
fn test_name(code: &str) -> Option<&str> {
    let (modules, name) = code.rsplit_once("::")?;
    let is_word = |word: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(plain)
    };
    (modules.split("::").all(is_word) && is_word(name) && name.contains('_')).then_some(name)
}

/// The names of the functions in a source file.
fn functions(source: &str) -> impl Iterator<Item = String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    source.split("fn ").skip(1).filter_map(move |rest| {
        let name = rest.split(|c| !is_name(c)).next()?;
        (!name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout(readme: &str) -> Checkout {
        let files = ["README.md", "docs/policy.md", "policy-agent/src/proxy/tls.rs", "LICENSE"];
        let documents =
            [("README.md", readme), ("docs/policy.md", "# The floor\n## What's `in` it\n")];
        let parsed = |(path, text): (&str, &str)| (path.to_owned(), Document::parse(text));
        Checkout {
            files: files.map(str::to_owned).into(),
            functions: functions("fn a_name_is_judged() {}\npub async fn other<T>()").collect(),
            documents: documents.map(parsed).into(),
        }
    }

    #[test]
    fn the_documents_of_this_checkout_lead_somewhere() {
        let checkout = Checkout::read(host::repository_root()).expect("a checkout");
        assert!(checkout.documents.len() > TOP.len(), "documents are found");
        assert_eq!(checkout.problems(), Vec::<String>::new());
    }

    #[test]
    fn what_is_there_may_be_named() {
        for text in [
            "[a](docs/policy.md) [b](docs/policy.md#the-floor) [c](docs/policy.md#whats-in-it)",
            "[a](https://example.com/x#y) [b](LICENSE) [c](docs/) <mailto:a@b.example>",
            "# Here\n\n[a](#here)\n\n| table |\n|---|\n| [b](#here) |\n",
            "# Twice\n# Twice\n[a](#twice) [b](#twice-1)",
            "`policy-agent/src/proxy/tls.rs` `proxy/tls.rs` `policy.md` `docs/` `policy-agent/src`",
            "`tls::a_name_is_judged` `other` `fd00::2` `64:ff9b::/96` `a/b` `target/x.o`",
            "`/etc/x.rs` `policy-agent run` `*.rs` `GET /health`",
            "```\n[a](nowhere.md) `nowhere.md`\n```\n",
        ] {
            assert_eq!(checkout(text).problems(), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_its_line() {
        for (text, problem) in [
            ("\n\n[a](docs/police.md)", "README.md:3: docs/police.md: there is no such file"),
            ("[a](../README.md)", "README.md:1: ../README.md: there is no such file"),
            (
                "[a](docs/policy.md#x)",
                "README.md:1: docs/policy.md#x: docs/policy.md has no such heading",
            ),
            ("# A\n[a](#b)", "README.md:2: #b: README.md has no such heading"),
            ("`proxy/tsl.rs`", "README.md:1: `proxy/tsl.rs`: there is no such file"),
            ("`docs/police`", "README.md:1: `docs/police`: there is no such file"),
            (
                "`tls::a_name_is_not`",
                "README.md:1: `tls::a_name_is_not`: there is no function a_name_is_not",
            ),
        ] {
            assert_eq!(checkout(text).problems(), [problem], "{text}");
        }
    }

    #[test]
    fn a_link_is_relative_to_its_document() {
        assert_eq!(resolve("docs/a.md", "b.md").as_deref(), Some("docs/b.md"));
        assert_eq!(resolve("docs/a.md", "../README.md").as_deref(), Some("README.md"));
        assert_eq!(resolve("README.md", "./docs/").as_deref(), Some("docs"));
        assert_eq!(resolve("README.md", "../x"), None);
    }
}
