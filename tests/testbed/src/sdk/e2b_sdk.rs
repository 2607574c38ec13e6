//! The SDKs that `cargo xtask` installs, and the environment that connects them to the agent.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::network::{NetworkNamespace, sandbox::SandboxAddressing};

/// The API key that clients send.
pub const API_KEY: &str = "e2b_0123456789abcdef";
/// The address of the API in the host.
pub const API_ADDRESS: &str = "127.0.0.1:3000";
/// The domain of public URLs.
pub const PUBLIC_DOMAIN: &str = "sandbox.example.net";

/// The agent's configuration (TOML) for these clients, without pooled interfaces.
pub fn agent_config() -> String {
    format!(
        "[api]\nlisten = \"{API_ADDRESS}\"\napi_keys = [\"{API_KEY}\"]\n\
         [gateway]\ndomain = \"{PUBLIC_DOMAIN}\"\nhttp = \"0.0.0.0:80\"\n"
    )
}

/// The configuration (TOML) of a pooled interface.
pub fn pool_interface_config(identity: SandboxAddressing) -> String {
    let (v4, v6) = (identity.v4(), identity.v6());
    let interface = identity.host_interface();
    format!("[[interfaces]]\ninterface = \"{interface}\"\naddresses = [\"{v4}\", \"{v6}\"]\n")
}

/// One SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum E2bSdk {
    /// Python. It creates sandboxes with `POST /v2/sandboxes`.
    Python,
    /// An older Python SDK. It creates sandboxes with `POST /sandboxes`.
    PythonV1,
    /// JavaScript. It creates sandboxes with `POST /v2/sandboxes`.
    JavaScript,
}

impl E2bSdk {
    /// All SDKs.
    pub const ALL: [Self; 3] = [Self::Python, Self::PythonV1, Self::JavaScript];

    /// A command that runs a program (named without extension) in the host, with access to the API.
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
                // Keep the path of the link, since the SDK is next to the link.
                command.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
                let programs = install_directory().join("javascript/programs");
                command.arg(programs.join(program).with_extension("mjs"));
            }
        }
        // Ignore the user's environment: it may name a proxy, or E2B's own servers.
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
        // Not the canonical path: Python finds its packages through the path in the virtual
        // environment.
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

/// The directory of the programs.
pub fn programs_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk")
}

/// The directory in which `cargo xtask` installs the SDKs.
pub fn install_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sdk")
}
