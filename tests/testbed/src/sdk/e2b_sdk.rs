//! The SDKs that `cargo xtask` installs, and the environment in which they find the agent.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::network::{NetworkNamespace, sandbox::SandboxAddressing};

/// The key that clients send.
pub const API_KEY: &str = "e2b_0123456789abcdef";
/// Where the API listens in the host.
pub const API_ADDRESS: &str = "127.0.0.1:3000";
/// The domain of public URLs.
pub const PUBLIC_DOMAIN: &str = "sandbox.example.net";

/// The agent's configuration for these clients (TOML), but for sandboxes to be handed out.
pub fn agent_config() -> String {
    format!(
        "[api]\nlisten = \"{API_ADDRESS}\"\napi_keys = [\"{API_KEY}\"]\n\
         [gateway]\ndomain = \"{PUBLIC_DOMAIN}\"\nhttp = \"0.0.0.0:80\"\n"
    )
}

/// A sandbox's interface as the agent's configuration says that it may be handed out (TOML).
pub fn pool_interface_config(identity: SandboxAddressing) -> String {
    let (v4, v6) = (identity.v4(), identity.v6());
    let interface = identity.host_interface();
    format!("[[interfaces]]\ninterface = \"{interface}\"\naddresses = [\"{v4}\", \"{v6}\"]\n")
}

/// One SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum E2bSdk {
    /// Python; it creates sandboxes by `POST /v2/sandboxes`.
    Python,
    /// An older one for Python, which does so by `POST /sandboxes`.
    PythonV1,
    /// JavaScript, by `POST /v2/sandboxes`.
    JavaScript,
}

impl E2bSdk {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Python, Self::PythonV1, Self::JavaScript];

    /// Will run a program (its name is without extension) in the host, where it finds the API.
    ///
    /// # Errors
    /// The SDK is not installed.
    pub fn command(self, host: &NetworkNamespace, program: &str) -> Result<Command> {
        let mut command = host.command(&self.interpreter()?.to_string_lossy())?;
        match self {
            Self::Python | Self::PythonV1 => {
                command.arg(programs_directory().join(program).with_extension("py"));
            }
            Self::JavaScript => {
                // Under the link's name, beside which the SDK is.
                command.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
                let programs = install_directory().join("javascript/programs");
                command.arg(programs.join(program).with_extension("mjs"));
            }
        }
        // Nothing of the user's environment: it may name a proxy, or E2B's own servers.
        command.env_clear().env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("E2B_API_URL", format!("http://{API_ADDRESS}")).env("E2B_API_KEY", API_KEY);
        command.env("E2B_SANDBOX_URL", "http://127.0.0.1");
        Ok(command)
    }

    /// The SDK's Python, or Node.
    ///
    /// # Errors
    /// The SDK is not installed.
    pub fn interpreter(self) -> Result<PathBuf> {
        let interpreter = install_directory().join(match self {
            Self::Python => "python/bin/python",
            Self::PythonV1 => "python-v1/bin/python",
            Self::JavaScript => "node/bin/node",
        });
        let missing = || format!("{self} is not installed: run `cargo xtask setup`");
        interpreter.metadata().with_context(missing)?;
        // Not its canonical name: by the one in the environment, Python knows its packages.
        Ok(interpreter)
    }
}

impl fmt::Display for E2bSdk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Python => "the SDK for Python",
            Self::PythonV1 => "the older SDK for Python",
            Self::JavaScript => "the SDK for JavaScript",
        })
    }
}

/// Where the programs are.
pub fn programs_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk")
}

/// What `cargo xtask` installs.
pub fn install_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sdk")
}
