//! Realistic lists, and the clients that run under them, through the egress proxy. Each client
//! performs a small typical task, and also shows that a denied name is refused.
//!
//! All names belong to the test: its DNS server resolves them to its web servers, whose
//! certificates come from its authority.

mod allow_lists;
mod apt_client;
mod cargo_client;
mod curl_client;
mod field_client;
mod field_testbed;
mod git_backend;
mod git_client;
mod go_client;
mod java_client;
mod node_clients;
mod python_clients;
mod registry_content;
mod registry_server;
mod rule_headers;

use std::path::{Path, PathBuf};

/// The list for the clients.
const CLIENT_LIST: &str = "coding_agent";
/// The only allowed name in the tests of denied clients.
const UNRELATED_NAME: &str = "api.example.com";

/// The directory of the clients' programs.
fn programs_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}
