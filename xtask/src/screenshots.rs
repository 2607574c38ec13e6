//! `cargo xtask screenshots`: pictures of the terminal and of the page for the documentation. Tests take
//! them, in a network of their own.

use std::fs;

use anyhow::{Context as _, Result};

use crate::build::DevelopmentBuild;
use crate::system_packages::{self, ToolCaller};
use crate::toolchain::ToolchainSource;
use crate::{build, host, process};

/// Tells the tests where to put pictures.
const DIRECTORY: &str = "SCREENSHOTS";

pub(crate) fn run(way: Option<ToolchainSource>) -> Result<()> {
    host::require_root("screenshots")?;
    build::build_for_tests(way, DevelopmentBuild::Programs, || {
        system_packages::ensure_tools(ToolCaller::Tests)
    })?;
    let images = host::repository_root().join("docs/images");
    fs::create_dir_all(&images).with_context(|| format!("making {}", images.display()))?;
    let mut test = host::cargo("test");
    test.env(DIRECTORY, &images).args([
        "--lib",
        "--test",
        "api",
        "--",
        "top::tests::picture",
        "page::",
    ]);
    process::run_streamed(&mut test)
}
