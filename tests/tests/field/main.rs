//! A field log: lists that people write, and the clients that they run under them, through the egress
//! proxy. Each client does a small job of its kind, and shows that a name is refused.
//!
//! All names are the test's own: its DNS server says that they are at its web servers, whose
//! certificates are its authority's.

mod apt;
mod cargo;
mod cgi;
mod client;
mod curl;
mod git;
mod go;
mod goods;
mod ground;
mod java;
mod lists;
mod node;
mod origin;
mod python;

use std::path::{Path, PathBuf};

/// The list under which clients run.
const AGENT: &str = "coding_agent";
/// What a sandbox may reach under which clients are refused.
const OTHER: &str = "api.example.com";

/// Where the clients' programs are.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("field")
}
