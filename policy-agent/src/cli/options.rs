//! Flags that override the agent's configuration.

use std::path::PathBuf;

use clap::Args;
use serde::{
    Deserialize,
    de::{IntoDeserializer as _, value},
};

use super::failure::Failure;
use crate::{
    config::Config,
    dataplane::{AttachMethod, DenyAction, Inbound, Mode},
};

/// Where the agent's configuration comes from, and where its state is.
#[derive(Args)]
pub struct Places {
    /// The agent's configuration, TOML; every key is optional
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where sandboxes are kept over restarts
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Directory on a BPF file system for links and maps
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
}

/// `[dataplane]` as flags.
#[derive(Args)]
pub struct Dataplane {
    /// tc, or xdp: drop early in XDP as well
    #[arg(long, value_name = "MODE", value_parser = word::<Mode>)]
    mode: Option<Mode>,
    /// auto, tcx or clsact
    #[arg(long, value_name = "METHOD", value_parser = word::<AttachMethod>)]
    attach: Option<AttachMethod>,
    /// reject: answer denied packets; drop: be silent
    #[arg(long, value_name = "ACTION", value_parser = word::<DenyAction>)]
    deny_action: Option<DenyAction>,
    /// any: connections to sandboxes from everywhere; host: from the host only
    #[arg(long, value_name = "WHO", value_parser = word::<Inbound>)]
    inbound: Option<Inbound>,
    /// Deny this address or network to every sandbox, beside platform_deny; may be repeated
    #[arg(long, value_name = "NET")]
    platform_deny_add: Vec<String>,
}

impl Places {
    /// Whether nobody has said another place than the default ones.
    pub fn are_default(&self) -> bool {
        self.config.is_none() && self.state_dir.is_none() && self.bpffs.is_none()
    }

    /// The configuration with these flags.
    pub fn load(self) -> Result<Config, Failure> {
        self.load_with(None)
    }

    /// The configuration with these flags and those of the dataplane.
    pub fn load_with(self, dataplane: Option<Dataplane>) -> Result<Config, Failure> {
        let mut config = load(self.config)?;
        set(&mut config.state_dir, self.state_dir);
        set(&mut config.bpffs, self.bpffs);
        if let Some(flags) = dataplane {
            set(&mut config.dataplane.mode, flags.mode);
            set(&mut config.dataplane.attach, flags.attach);
            set(&mut config.dataplane.deny_action, flags.deny_action);
            set(&mut config.dataplane.inbound, flags.inbound);
            config.dataplane.platform_deny_add.extend(flags.platform_deny_add);
        }
        config.check().map_err(Failure::BadInput)?;
        Ok(config)
    }
}

/// The configuration in a file, or the default one.
pub fn load(path: Option<PathBuf>) -> Result<Config, Failure> {
    Config::load(path.as_deref()).map_err(Failure::BadInput)
}

fn set<T>(value: &mut T, flag: Option<T>) {
    if let Some(flag) = flag {
        *value = flag;
    }
}

/// Reads a flag's value as the configuration file would.
fn word<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, value::Error> {
    T::deserialize(text.into_deserializer())
}
