//! A field log: lists that people write, and the clients that they run under them, through the egress
//! proxy. Each client does a small job of its kind, and shows that a name is refused.
//!
//! All names are the test's own: its DNS server says that they are at its web servers, whose
//! certificates are its authority's.

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

use std::path::{Path, PathBuf};

/// The list under which clients run.
const CLIENT_LIST: &str = "coding_agent";
/// What a sandbox may reach under which clients are refused.
const UNRELATED_NAME: &str = "api.example.com";

/// Where the clients' programs are.
fn programs_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}
