//! Access to one Debian release, whatever release this machine runs. It uses package lists of its
//! own and leaves the machine's lists unchanged. The machine's apt configuration provides the
//! address of the archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{apt_get, host, process};

/// The keyring that signs every release since Debian 11.
const ARCHIVE_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package lists of a release.
pub(crate) struct DebianArchive {
    directory: PathBuf,
    suite: &'static str,
}

impl DebianArchive {
    /// Opens the lists in a directory below `directory`. Fetches them if there are none.
    pub(crate) fn open(directory: &Path, suite: &'static str) -> Result<Self> {
        let archive = Self { directory: directory.join(suite), suite };
        if !archive.lists_directory().join("fetched").exists() {
            archive.fetch_lists()?;
        }
        Ok(archive)
    }

    /// The dependency of `package` whose name begins with `prefix`.
    pub(crate) fn find_dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let listed = process::run_output(self.apt_command("apt-cache").args(["depends", package]))?;
        let mut depends = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let found = depends.find(|package| package.starts_with(prefix));
        found.map(str::to_owned).with_context(|| format!("{package} depends on no {prefix}*"))
    }

    /// Downloads a package into a directory.
    pub(crate) fn download(&self, package: &str, to: &Path) -> Result<()> {
        let mut download = self.apt_command("apt-get");
        download.current_dir(to).args(["download", package]);
        process::run_logged(&format!("downloading {package}"), "archive-download", &mut download)
    }

    /// Fetches the lists.
    pub(crate) fn fetch_lists(&self) -> Result<()> {
        for needed in
            [self.lists_directory().join("partial"), self.directory.join("cache/archives/partial")]
        {
            fs::create_dir_all(&needed)
                .with_context(|| format!("creating {}", needed.display()))?;
        }
        fs::write(self.sources_file(), sources_list(self.suite)?)?;
        let what = format!("fetching the package lists of Debian's {}", self.suite);
        process::run_logged(&what, "archive-lists", self.apt_command("apt-get").arg("update"))?;
        fs::write(self.lists_directory().join("fetched"), "")?;
        Ok(())
    }

    /// An apt command that uses this release only.
    fn apt_command(&self, program: &str) -> Command {
        let mut command = host::command(program);
        command.env("LC_ALL", "C");
        let mut set = |name: &str, value: &Path| {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        };
        set("Dir::State", &self.directory.join("state"));
        set("Dir::State::status", Path::new("/var/lib/dpkg/status"));
        set("Dir::Cache", &self.directory.join("cache"));
        set("Dir::Etc::sourcelist", &self.sources_file());
        set("Dir::Etc::sourceparts", Path::new("-"));
        // The user `_apt` may be unable to read `target/`.
        set("APT::Sandbox::User", Path::new("root"));
        command
    }

    fn lists_directory(&self) -> PathBuf {
        self.directory.join("state/lists")
    }

    fn sources_file(&self) -> PathBuf {
        self.directory.join("sources.list")
    }
}

/// Unpacks a package below a directory.
pub(crate) fn extract_package(package: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    process::run_output(host::command("dpkg-deb").arg("--extract").arg(package).arg(to))?;
    Ok(())
}

/// A sources list for the release, with the Debian archives that this machine uses.
fn sources_list(suite: &str) -> Result<String> {
    if debian_archives()?.is_empty() {
        apt_get::update_lists()?;
    }
    let lines: Vec<String> = debian_archives()?
        .into_iter()
        .map(|(label, uri)| {
            let suffix = if label == "Debian-Security" { "-security" } else { "" };
            format!("deb [signed-by={ARCHIVE_KEYRING}] {uri} {suite}{suffix} main\n")
        })
        .collect();
    if lines.is_empty() {
        bail!("apt-get knows no archive of Debian's, which has the kernels");
    }
    Ok(lines.concat())
}

/// The Debian archives in apt's configuration: label and address.
fn debian_archives() -> Result<Vec<(String, String)>> {
    let mut targets = host::command("apt-get");
    targets.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let listed = process::run_output(&mut targets)?;
    let pairs = listed.lines().filter_map(|line| line.split_once(' '));
    let mut archives: Vec<_> = pairs
        .filter(|(label, _)| ["Debian", "Debian-Security"].contains(label))
        .map(|(label, uri)| (label.to_owned(), uri.to_owned()))
        .collect();
    archives.sort();
    archives.dedup();
    Ok(archives)
}
