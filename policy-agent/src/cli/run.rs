//! `run`: runs the agent.

use std::path::Path;

use clap::Args;

use super::{
    check::platform_policy,
    cli_failure::CliFailure,
    config_args::{DataplaneArgs as Flags, LocationArgs},
};
use crate::{daemon, logging::LogSink};

/// Run the agent
///
/// Runs the agent in the foreground. It takes over what an earlier agent left, without a gap in
/// enforcement. When it stops or is killed, the kernel continues to enforce.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent run
  policy-agent run --config /etc/policy-agent.toml
  policy-agent --socket /tmp/a.sock run --state-dir /tmp/a --bpffs /sys/fs/bpf/a

RUST_LOG sets what is logged to stderr, for example RUST_LOG=debug.")]
pub(super) struct RunCommand {
    #[command(flatten)]
    locations: LocationArgs,
    #[command(flatten)]
    dataplane: Flags,
}

impl RunCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let config = self.locations.load_with_dataplane(Some(self.dataplane))?;
        let platform_policy = platform_policy(&config)?;
        let log = LogSink::init_stderr()?;
        config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(daemon::run(config, platform_policy, socket, &log)?)
    }
}
