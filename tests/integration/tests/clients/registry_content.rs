//! The content of the registries: pages by host and path, archives of the package `tiny-field`, and
//! git repositories.

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
use policy_testbed::{
    named_internet::web_pages::hex,
    network::{command, unique_directory},
    sdk::E2bSdk,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{
    apt_client, cargo_client, curl_client, git_client, go_client, node_clients, programs_directory,
    python_clients, registry_server,
};

/// HTML, the format of a package index.
pub(crate) const MEDIA_HTML: &str = "text/html";
/// JSON.
pub(crate) const MEDIA_JSON: &str = "application/json";
/// Any other data.
pub(crate) const MEDIA_BYTES: &str = "application/octet-stream";

/// All content.
pub(crate) struct RegistryContent {
    pages: HashMap<String, RegistryPage>,
    directory: TempDir,
}

/// The response for a path.
#[derive(Clone)]
pub(crate) enum RegistryPage {
    /// A body with its media type.
    Body(&'static str, Bytes),
    /// A redirect to another URL.
    Redirect(String),
}

impl RegistryContent {
    /// Builds all archives.
    pub(crate) fn build() -> Result<Self> {
        let directory = unique_directory("goods")?;
        let mut python = Command::new(E2bSdk::Python.interpreter()?);
        command::run(python.arg(programs_directory().join("pack.py")).arg(directory.path()))?;
        let mut goods = Self { pages: HashMap::new(), directory };
        python_clients::add_wheel(&mut goods)?;
        node_clients::add_package(&mut goods)?;
        go_client::add_module(&mut goods)?;
        cargo_client::add_crate(&mut goods)?;
        apt_client::add_packages(&mut goods);
        curl_client::add_release(&mut goods);
        git_client::create_repository(&goods)?;
        Ok(goods)
    }

    /// Reads one of the archives that `pack.py` created.
    pub(crate) fn archive(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.directory.path().join(name);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Adds a page at `host/path`.
    pub(crate) fn add_page(&mut self, url: &str, kind: &'static str, body: impl Into<Bytes>) {
        self.pages.insert(url.to_owned(), RegistryPage::Body(kind, body.into()));
    }

    /// Adds a redirect.
    pub(crate) fn add_redirect(&mut self, url: &str, to: &str) {
        self.pages.insert(url.to_owned(), RegistryPage::Redirect(to.to_owned()));
    }

    /// The page of a host at a path.
    pub(crate) fn find_page(&self, host: &str, path: &str) -> Option<&RegistryPage> {
        self.pages.get(&format!("{host}{path}"))
    }

    /// The directory of git repositories.
    pub(crate) fn repositories(&self) -> PathBuf {
        self.directory().join("repositories")
    }

    /// A directory for files to pack.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl RegistryPage {
    /// Converts the page to a response.
    pub(crate) fn to_response(&self) -> Response<Body> {
        let (kind, body) = match self {
            Self::Body(kind, body) => (kind, body.clone()),
            Self::Redirect(url) => {
                let mut response = registry_server::text_response(StatusCode::FOUND, String::new());
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
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
