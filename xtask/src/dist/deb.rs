//! The Debian package.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{PackageInput, files};
use crate::{host, process};

const MAINTAINER: &str = "The policy-agent developers <policy-agent@localhost>";
/// What the installed agent calls, if anything. It is linked statically.
const RECOMMENDED: &str = "nftables";

/// Makes the package from the files below `root`, and returns its path.
pub(super) fn make_package(input: &PackageInput, root: &Path) -> Result<PathBuf> {
    let tree = input.output.join("work/deb");
    process::run_output(host::command("cp").arg("-a").arg(root).arg(&tree))?;
    let architecture = process::run_output(host::command("dpkg").arg("--print-architecture"))
        .context("the package is made with Debian's dpkg")?;
    let architecture = architecture.trim();
    files::write_file(
        &tree,
        "DEBIAN/control",
        0o644,
        control(input, &tree, architecture)?.as_bytes(),
    )?;
    files::write_file(&tree, "DEBIAN/conffiles", 0o644, b"/etc/policy-agent.toml\n")?;
    files::write_file(
        &tree,
        "usr/share/doc/policy-agent/copyright",
        0o644,
        copyright()?.as_bytes(),
    )?;
    let documents = tree.join("usr/share/doc/policy-agent");
    fs::write(documents.join("changelog"), changelog(input)?)?;
    process::run_output(host::command("gzip").args(["-9", "-n"]).arg(documents.join("changelog")))?;
    let overrides = fs::read(host::repository_root().join("dist/debian/lintian-overrides"))?;
    files::write_file(&tree, "usr/share/lintian/overrides/policy-agent", 0o644, &overrides)?;
    for script in ["postinst", "prerm", "postrm"] {
        let text = fs::read(host::repository_root().join("dist/debian").join(script))?;
        files::write_file(&tree, &format!("DEBIAN/{script}"), 0o755, &text)?;
    }
    let package = input.output.join(format!("policy-agent_{}_{architecture}.deb", input.version));
    // xz would take ten times as long to save a tenth.
    let mut build = host::command("dpkg-deb");
    build.args(["--root-owner-group", "-Zgzip", "--build"]).arg(&tree).arg(&package);
    process::run_output(build.env("SOURCE_DATE_EPOCH", &input.timestamp))?;
    Ok(package)
}

fn control(input: &PackageInput, tree: &Path, architecture: &str) -> Result<String> {
    let size = process::run_output(host::command("du").arg("-sk").arg(tree))?;
    let size = size.split_whitespace().next().unwrap_or("0").to_owned();
    Ok(format!(
        "Package: policy-agent\nVersion: {}\nArchitecture: {architecture}\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {size}\nRecommends: {RECOMMENDED}\nSection: net\nPriority: optional\n\
         Description: network policies for sandboxes, enforced with eBPF\n \
         Decides what a sandbox may reach on the network: by address in the kernel, and\n \
         by name in a proxy. The kernel goes on enforcing while the agent is stopped.\n",
        input.version
    ))
}

/// Debian has the text of Apache-2.0 in every installation.
fn copyright() -> Result<String> {
    let mit = fs::read_to_string(host::repository_root().join("LICENSE-MIT"))?;
    Ok(format!(
        "policy-agent is licensed under MIT or Apache-2.0, as you choose.\n\n\
         Apache-2.0: see /usr/share/common-licenses/Apache-2.0\n\nMIT:\n\n{mit}"
    ))
}

/// The changelog in Debian's format. It refers to the project's own.
fn changelog(input: &PackageInput) -> Result<String> {
    let mut date = host::command("date");
    let date =
        process::run_output(date.args(["-u", "-R", "-d"]).arg(format!("@{}", input.timestamp)))?;
    Ok(format!(
        "policy-agent ({}) stable; urgency=medium\n\n  * See CHANGELOG.md in this directory.\n\n \
         -- {MAINTAINER}  {date}",
        input.version
    ))
}
