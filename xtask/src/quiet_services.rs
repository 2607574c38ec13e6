//! Keeps Debian's packages from starting their servers. Their maintainer scripts consult
//! `policy-rc.d` first (invoke-rc.d(8)), which an administrator may have installed.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{host, process};

const POLICY_RC_D: &str = "/usr/sbin/policy-rc.d";
/// Exit code 101 forbids the action.
const FORBID_ALL_SCRIPT: &str =
    "#!/bin/sh\n# Of `cargo xtask setup`, while it runs: nothing is started.\nexit 101\n";

/// While this exists, no package starts a server.
pub(crate) struct QuietServices {
    is_ours: bool,
}

impl QuietServices {
    /// Installs the policy, unless the administrator has installed one.
    pub(crate) fn install() -> Result<Self> {
        // An interrupted run may have left its policy.
        let known = match fs::read_to_string(POLICY_RC_D) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("reading {POLICY_RC_D}")),
        };
        let is_ours = known.is_none_or(|text| text == FORBID_ALL_SCRIPT);
        // Without apt or without root, nothing is installed.
        if is_ours && host::is_root() && host::find_program("apt-get").is_some() {
            write_policy().with_context(|| format!("writing {POLICY_RC_D}"))?;
        }
        Ok(Self { is_ours })
    }
}

fn write_policy() -> Result<()> {
    fs::write(POLICY_RC_D, FORBID_ALL_SCRIPT)?;
    fs::set_permissions(POLICY_RC_D, Permissions::from_mode(0o755))?;
    Ok(())
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if self.is_ours
            && Path::new(POLICY_RC_D).exists()
            && let Err(error) = fs::remove_file(POLICY_RC_D)
        {
            process::report(&format!(
                "remove {POLICY_RC_D} by hand, or no server will start: {error}"
            ));
        }
    }
}
