//! What tests of the gateway share: its configuration, clients that come from the internet to a
//! public URL, and services in a sandbox.
//!
//! - [`public_client`]: curl and hand-written HTTP/1, from outside.
//! - [`raw_http2`]: hand-written HTTP/2, as no library would send it.
//! - [`recording_service`]: a service that keeps what reaches it, byte by byte.
//! - [`manual_service`]: services that the test itself plays, and the [`named_internet`](crate::named_internet) pages.

pub mod manual_service;
pub mod public_client;
pub mod raw_http2;
pub mod recording_service;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    agent::AgentProcess,
    network::host_router::HOST_UPLINK_V4,
    test_servers::{HTTP_PORT, HTTPS_PORT},
    testbed::{OrFail as _, TestSandbox},
};

/// The domain of the tests' gateways.
pub const GATEWAY_DOMAIN: &str = "sandbox.test";

/// A gateway at both ports of the host, at all its addresses.
pub const GATEWAY_CONFIG: &str = "[gateway]\ndomain = \"sandbox.test\"\n\
                          http = \"[::]:80\"\nhttps = \"[::]:443\"\n";

/// Where services listen in a sandbox, if it does not matter.
pub const SERVICE_PORT: u16 = 3000;

/// What names a traffic token: header, query parameter and cookie.
pub const TOKEN_NAME: &str = "e2b-traffic-access-token";

/// The gateway's address for HTTP, from the internet.
pub fn http_address() -> SocketAddr {
    (IpAddr::from(HOST_UPLINK_V4), HTTP_PORT).into()
}

/// The gateway's address for HTTPS, from the internet.
pub fn https_address() -> SocketAddr {
    (IpAddr::from(HOST_UPLINK_V4), HTTPS_PORT).into()
}

/// The host of a public URL.
pub fn public_host(id: &str, port: u16) -> String {
    format!("{port}-{id}.{GATEWAY_DOMAIN}")
}

/// A sandbox's traffic token, as the agent keeps it.
///
/// # Errors
/// The agent has no state of the sandbox, or no token in it.
pub fn read_traffic_token(agent: &AgentProcess, id: &str) -> Result<String> {
    let file = agent.state_dir().join(format!("sandboxes/{id}.json"));
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let kept: Value = serde_json::from_str(&text).context("the agent's state")?;
    kept["token"].as_str().map(str::to_owned).context("the agent's state has a token")
}

impl TestSandbox {
    /// The host of the sandbox's public URL.
    pub fn public_host(&self, port: u16) -> String {
        public_host(&self.id, port)
    }

    /// What a private public URL wants to be shown.
    #[track_caller]
    pub fn traffic_token(&self) -> String {
        read_traffic_token(&self.testbed.agent(), &self.id).or_fail("the sandbox's traffic token")
    }
}
