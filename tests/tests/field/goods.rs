//! What the registries of the field have: pages by host and path, archives of the package `tiny-field`,
//! and git repositories.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Response, StatusCode, header},
};
use policy_tests::{
    names::pages::hex,
    sdk::Sdk,
    world::{command, unique},
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{apt, cargo, curl, git, go, node, origin, programs, python};

/// HTML, as an index of packages is.
pub const HTML: &str = "text/html";
/// JSON.
pub const JSON: &str = "application/json";
/// Anything else.
pub const BYTES: &str = "application/octet-stream";

/// What is to be had.
pub struct Goods {
    pages: HashMap<String, Page>,
    directory: TempDir,
}

/// What a server answers for a path.
#[derive(Clone)]
pub enum Page {
    /// A body with its media type.
    Body(&'static str, Bytes),
    /// It is at another URL.
    At(String),
}

impl Goods {
    /// Packs everything.
    pub fn pack() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&unique("goods")).tempdir()?;
        let mut python = Command::new(Sdk::Python.interpreter()?);
        command::run(python.arg(programs().join("pack.py")).arg(directory.path()))?;
        let mut goods = Self { pages: HashMap::new(), directory };
        python::stock(&mut goods)?;
        node::stock(&mut goods)?;
        go::stock(&mut goods)?;
        cargo::stock(&mut goods)?;
        apt::stock(&mut goods);
        curl::stock(&mut goods);
        git::stock(&goods)?;
        Ok(goods)
    }

    /// One of the archives that `pack.py` made.
    pub fn archive(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.directory.path().join(name);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Adds a page, at `host/path`.
    pub fn add(&mut self, url: &str, kind: &'static str, body: impl Into<Bytes>) {
        self.pages.insert(url.to_owned(), Page::Body(kind, body.into()));
    }

    /// Adds a redirect.
    pub fn redirect(&mut self, url: &str, to: &str) {
        self.pages.insert(url.to_owned(), Page::At(to.to_owned()));
    }

    /// The page of a host at a path.
    pub fn page(&self, host: &str, path: &str) -> Option<&Page> {
        self.pages.get(&format!("{host}{path}"))
    }

    /// Where git repositories are.
    pub fn repositories(&self) -> PathBuf {
        self.path().join("repositories")
    }

    /// A directory for what is to be packed.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Page {
    /// The answer.
    pub fn response(&self) -> Response<Body> {
        let (kind, body) = match self {
            Self::Body(kind, body) => (kind, body.clone()),
            Self::At(url) => {
                let mut response = origin::status(StatusCode::FOUND, String::new());
                if let Ok(url) = HeaderValue::from_str(url) {
                    response.headers_mut().insert(header::LOCATION, url);
                }
                return response;
            }
        };
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// The SHA-256 of an archive, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
