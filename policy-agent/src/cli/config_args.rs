//! Command-line flags that override the agent's configuration.

use std::path::PathBuf;

use clap::Args;
use serde::{
    Deserialize,
    de::{IntoDeserializer as _, value},
};

use super::cli_failure::CliFailure;
use crate::{
    config::AgentConfig,
    dataplane::{AttachMethod, DenyAction, HookMode, InboundSource},
};

/// The locations of the agent's configuration and state.
#[derive(Args, Clone)]
pub(super) struct LocationArgs {
    /// The agent's configuration in TOML; every key is optional
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory that keeps the sandboxes across restarts
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Directory on a BPF file system for pinned links and maps
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
}

/// The settings of `[dataplane]` as flags.
#[derive(Args, Clone)]
pub(super) struct DataplaneArgs {
    /// Hook mode: tc, or xdp to drop packets early in XDP as well
    #[arg(long, value_name = "MODE", value_parser = parse_word::<HookMode>)]
    mode: Option<HookMode>,
    /// How to attach programs: auto, tcx or clsact
    #[arg(long, value_name = "METHOD", value_parser = parse_word::<AttachMethod>)]
    attach: Option<AttachMethod>,
    /// What to do with denied packets: reject answers them, drop discards them silently
    #[arg(long, value_name = "ACTION", value_parser = parse_word::<DenyAction>)]
    deny_action: Option<DenyAction>,
    /// Who may connect to sandboxes: any, or host for the host only
    #[arg(long, value_name = "WHO", value_parser = parse_word::<InboundSource>)]
    inbound: Option<InboundSource>,
    /// Deny this address or network to every sandbox, in addition to platform_deny; repeatable
    #[arg(long, value_name = "NET")]
    platform_deny_add: Vec<String>,
}

impl LocationArgs {
    /// Returns whether all locations are the default ones.
    pub(super) fn are_default(&self) -> bool {
        self.config.is_none() && self.state_dir.is_none() && self.bpffs.is_none()
    }

    /// Loads the configuration and applies these flags.
    pub(super) fn load(self) -> Result<AgentConfig, CliFailure> {
        self.load_with_dataplane(None)
    }

    /// Loads the configuration and applies these flags and those of the dataplane.
    pub(super) fn load_with_dataplane(
        self,
        dataplane: Option<DataplaneArgs>,
    ) -> Result<AgentConfig, CliFailure> {
        let mut config = load_config(self.config)?;
        override_with(&mut config.state_dir, self.state_dir);
        override_with(&mut config.bpffs, self.bpffs);
        if let Some(flags) = dataplane {
            override_with(&mut config.dataplane.mode, flags.mode);
            override_with(&mut config.dataplane.attach, flags.attach);
            override_with(&mut config.dataplane.deny_action, flags.deny_action);
            override_with(&mut config.dataplane.inbound, flags.inbound);
            config.dataplane.platform_deny_add.extend(flags.platform_deny_add);
        }
        config.check().map_err(CliFailure::BadInput)?;
        Ok(config)
    }
}

/// Loads the configuration from a file, or the default one.
pub(super) fn load_config(path: Option<PathBuf>) -> Result<AgentConfig, CliFailure> {
    AgentConfig::load(path.as_deref()).map_err(CliFailure::BadInput)
}

fn override_with<T>(value: &mut T, flag: Option<T>) {
    if let Some(flag) = flag {
        *value = flag;
    }
}

/// Parses a flag's value as the configuration file does.
fn parse_word<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, value::Error> {
    T::deserialize(text.into_deserializer())
}
