//! `run`: runs the agent.

use std::{path::Path, sync::Arc};

use clap::Args;

use super::{
    check::platform_policy,
    cli_failure::CliFailure,
    config_args::{DataplaneArgs as Flags, LocationArgs},
};
use crate::{
    daemon::{self, LoadedConfig},
    logging::{LogFormat, LogSink},
};

/// Run the agent
///
/// Runs the agent in the foreground. It takes over what an earlier agent left, without a gap in
/// enforcement. When it stops or is killed, the kernel continues to enforce.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent run
  policy-agent run --config /etc/policy-agent.toml
  policy-agent --socket /tmp/a.sock run --state-dir /tmp/a --bpffs /sys/fs/bpf/a

SIGHUP reloads the configuration: all of it, or nothing if it is invalid. The log says what changed
and what needs a restart.

RUST_LOG sets what is logged to stderr, for example RUST_LOG=debug.")]
pub(super) struct RunCommand {
    #[command(flatten)]
    locations: LocationArgs,
    #[command(flatten)]
    dataplane: Flags,
    /// Format of the log: text, or json for one object a line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

impl RunCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let loaded = self.load()?;
        let log = LogSink::init_stderr(self.log_format)?;
        loaded.config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let load = Arc::new(move || self.load().map_err(CliFailure::into_error));
        Ok(daemon::run(loaded, load, socket, &log)?)
    }

    /// Reads the configuration, and applies the flags.
    fn load(&self) -> Result<LoadedConfig, CliFailure> {
        let config = self.locations.clone().load_with_dataplane(Some(self.dataplane.clone()))?;
        let platform_policy = platform_policy(&config)?;
        let api_keys = config.load_api_keys().map_err(CliFailure::BadInput)?;
        Ok(LoadedConfig { config, platform_policy, api_keys })
    }
}
