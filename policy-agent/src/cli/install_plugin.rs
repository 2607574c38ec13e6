//! The `install-plugin` command, for images that hold nothing but the agent.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;

use super::{cli_failure::CliFailure, container_policy::POLICY_DIRECTORY, output};

/// The name by which container runtimes call the plugin.
const PLUGIN_NAME: &str = "policy-agent";

/// Copy this program to a directory of CNI plugins
///
/// Replaces the plugin that is there at once, also while runtimes call it.
#[derive(Args)]
#[command(after_help = "Example:
  policy-agent install-plugin /opt/cni/bin")]
pub(super) struct InstallPluginCommand {
    /// The directory, which has to exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Also copy the policy files in this directory, those that end in .json
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Where the plugin reads policy files
    #[arg(long, value_name = "DIR", default_value = POLICY_DIRECTORY, requires = "policies")]
    policy_directory: PathBuf,
}

impl InstallPluginCommand {
    pub(super) fn run(self) -> Result<(), CliFailure> {
        // Before the plugin, which needs them.
        if let Some(policies) = &self.policies {
            let listed = fs::read_dir(policies).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let listed = listed.with_context(|| format!("cannot list {}", policies.display()))?;
            for path in listed.iter().map(fs::DirEntry::path) {
                if let Some(name) =
                    path.file_name().filter(|_| path.extension() == Some("json".as_ref()))
                {
                    replace_file(&path, &self.policy_directory.join(name))?;
                }
            }
        }
        // The copy is executable, as this program is.
        replace_file(Path::new("/proc/self/exe"), &self.directory.join(PLUGIN_NAME))
    }
}

/// Copies a file in place of another one, which readers see as a whole.
fn replace_file(from: &Path, to: &Path) -> Result<(), CliFailure> {
    let new = to.with_extension("new");
    let replaced = fs::copy(from, &new).and_then(|_| fs::rename(&new, to));
    replaced.with_context(|| format!("cannot write {}", to.display()))?;
    output::print_line(format_args!("{} installed", to.display()))
}
