//! The files that a package installs, in a directory that stands for `/`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{host, process};

/// The place of the agent in the unit, and where packages install it.
const UNIT_BINARY: &str = "/usr/local/bin/policy-agent";
const BINARY: &str = "/usr/bin/policy-agent";
/// The shells, and where their completions are.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/policy-agent"),
    ("zsh", "usr/share/zsh/vendor-completions/_policy-agent"),
    ("fish", "usr/share/fish/vendor_completions.d/policy-agent.fish"),
];
/// Files of the repository, and where they go.
const COPIES: [(&str, &str); 7] = [
    ("docs/policy-agent.example.toml", "usr/share/doc/policy-agent/policy-agent.example.toml"),
    ("CHANGELOG.md", "usr/share/doc/policy-agent/CHANGELOG.md"),
    ("README.md", "usr/share/doc/policy-agent/README.md"),
    ("dist/prometheus/policy-agent.rules.yml", "usr/share/policy-agent/policy-agent.rules.yml"),
    ("dist/grafana/policy-agent.json", "usr/share/policy-agent/grafana-dashboard.json"),
    ("dist/debian/policy-agent.sysusers", "usr/lib/sysusers.d/policy-agent.conf"),
    ("dist/debian/policy-agent.tmpfiles", "usr/lib/tmpfiles.d/policy-agent.conf"),
];

/// Installs everything below `root`, without files of one kind of package only.
pub(super) fn install_files(binary: &Path, root: &Path) -> Result<()> {
    write_file(root, &BINARY[1..], 0o755, &fs::read(binary)?)?;
    for (from, to) in COPIES {
        let text = fs::read(host::repository_root().join(from));
        write_file(root, to, 0o644, &text.with_context(|| format!("cannot read {from}"))?)?;
    }
    let config = fs::read(host::repository_root().join("docs/policy-agent.example.toml"))?;
    // It may hold secrets.
    write_file(root, "etc/policy-agent.toml", 0o600, &config)?;
    write_file(root, "usr/lib/systemd/system/policy-agent.service", 0o644, unit()?.as_bytes())?;
    for (shell, to) in COMPLETIONS {
        let text = process::run_output(host::command(binary).args(["completions", shell]))?;
        write_file(root, to, 0o644, text.as_bytes())?;
    }
    install_manual_pages(binary, &root.join("usr/share/man/man1"))
}

/// The unit, with the agent where packages install it, and with the group that may use the socket.
fn unit() -> Result<String> {
    let unit = host::repository_root().join("policy-agent/systemd/policy-agent.service");
    let unit = fs::read_to_string(unit).context("cannot read the unit")?;
    let group = "RuntimeDirectory=policy-agent\nRuntimeDirectoryMode=0750\n# Owns the socket.\n\
                 Group=policy-agent\n";
    Ok(unit.replace(UNIT_BINARY, BINARY).replace("RuntimeDirectory=policy-agent\n", group))
}

fn install_manual_pages(binary: &Path, directory: &Path) -> Result<()> {
    process::run_output(host::command(binary).arg("man").arg(directory))?;
    for page in host::files_below(directory)? {
        process::run_output(host::command("gzip").args(["-9", "-n"]).arg(page))?;
    }
    Ok(())
}

/// Writes a file below `root` with its directories.
pub(super) fn write_file(root: &Path, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let path = root.join(path);
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}
