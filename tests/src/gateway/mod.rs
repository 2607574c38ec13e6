//! What tests of the gateway share: its configuration, clients that come from the internet to a
//! public URL, and services in a sandbox.
//!
//! - [`visit`]: curl and hand-written HTTP/1, from outside.
//! - [`frames`]: hand-written HTTP/2, as no library would send it.
//! - [`recorder`]: a service that keeps what reaches it, byte by byte.
//! - [`service`]: services that the test itself plays, and the [`names`](crate::names) pages.

pub mod frames;
pub mod recorder;
pub mod service;
pub mod visit;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    agent::Agent,
    server::{HTTP, HTTPS},
    stage::{Guest, OrFail as _},
    world::host::HOST_V4,
};

/// The domain of the tests' gateways.
pub const DOMAIN: &str = "sandbox.test";

/// A gateway at both ports of the host, at all its addresses.
pub const CONFIG: &str = "[gateway]\ndomain = \"sandbox.test\"\n\
                          http = \"[::]:80\"\nhttps = \"[::]:443\"\n";

/// Where services listen in a sandbox, if it does not matter.
pub const PORT: u16 = 3000;

/// What names a traffic token: header, query parameter and cookie.
pub const TOKEN: &str = "e2b-traffic-access-token";

/// The gateway's address for HTTP, from the internet.
pub fn http() -> SocketAddr {
    (IpAddr::from(HOST_V4), HTTP).into()
}

/// The gateway's address for HTTPS, from the internet.
pub fn https() -> SocketAddr {
    (IpAddr::from(HOST_V4), HTTPS).into()
}

/// The host of a public URL.
pub fn host(id: &str, port: u16) -> String {
    format!("{port}-{id}.{DOMAIN}")
}

/// A sandbox's traffic token, as the agent keeps it.
///
/// # Errors
/// The agent has no state of the sandbox, or no token in it.
pub fn token(agent: &Agent, id: &str) -> Result<String> {
    let file = agent.state_dir().join(format!("sandboxes/{id}.json"));
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let kept: Value = serde_json::from_str(&text).context("the agent's state")?;
    kept["token"].as_str().map(str::to_owned).context("the agent's state has a token")
}

impl Guest {
    /// The host of the sandbox's public URL.
    pub fn host(&self, port: u16) -> String {
        host(&self.id, port)
    }

    /// What a private public URL wants to be shown.
    #[track_caller]
    pub fn traffic_token(&self) -> String {
        token(&self.stage.agent(), &self.id).or_fail("the sandbox's traffic token")
    }
}
