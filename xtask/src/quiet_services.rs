//! Keeps Debian's packages from starting the servers that they bring: their scripts ask
//! `policy-rc.d` first, which an administrator may have (invoke-rc.d(8)).

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{host, step};

const POLICY: &str = "/usr/sbin/policy-rc.d";
/// 101: the action is forbidden.
const NOTHING: &str =
    "#!/bin/sh\n# Of `cargo xtask setup`, while it runs: nothing is started.\nexit 101\n";

/// As long as it lives, no package starts a server.
pub struct QuietServices {
    is_ours: bool,
}

impl QuietServices {
    /// Puts a policy in place, unless there is one already: that is the administrator's.
    pub fn on_this_machine() -> Result<Self> {
        // One of ours may be there when an earlier run was ended.
        let known = match fs::read_to_string(POLICY) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("reading {POLICY}")),
        };
        let is_ours = known.is_none_or(|text| text == NOTHING);
        // Without apt or without root nothing is installed.
        if is_ours && host::is_root() && host::find("apt-get").is_some() {
            write().with_context(|| format!("writing {POLICY}"))?;
        }
        Ok(Self { is_ours })
    }
}

fn write() -> Result<()> {
    fs::write(POLICY, NOTHING)?;
    fs::set_permissions(POLICY, Permissions::from_mode(0o755))?;
    Ok(())
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if self.is_ours
            && Path::new(POLICY).exists()
            && let Err(error) = fs::remove_file(POLICY)
        {
            step::say(&format!("remove {POLICY} by hand, or no server will start: {error}"));
        }
    }
}
