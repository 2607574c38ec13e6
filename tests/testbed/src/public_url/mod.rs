//! Shared by the tests of the gateway: its configuration, internet clients of a public URL, and
//! services in a sandbox.
//!
//! - [`public_client`]: curl and hand-written HTTP/1, from the internet.
//! - [`raw_http2`]: hand-written HTTP/2, including requests that no library would send.
//! - [`recording_service`]: a service that records every byte that it receives.
//! - [`http2_service`]: a service that speaks nothing but HTTP/2.
//! - [`manual_service`]: services that the test itself implements, and the pages of
//!   [`named_internet`](crate::named_internet).

pub mod http2_service;
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

/// A gateway on both ports of the host, at all its addresses.
pub const GATEWAY_CONFIG: &str = "[gateway]\ndomain = \"sandbox.test\"\n\
                          http = \"[::]:80\"\nhttps = \"[::]:443\"\n";

/// The response of an HTTP/1 service to the preface of HTTP/2.
pub(crate) const DECLINE_HTTP2: &str =
    "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The default port of services in a sandbox.
pub const SERVICE_PORT: u16 = 3000;

/// The name of a traffic token's header, query parameter and cookie.
pub const TOKEN_NAME: &str = "e2b-traffic-access-token";

/// The gateway's HTTP address, seen from the internet.
pub fn http_address() -> SocketAddr {
    (IpAddr::from(HOST_UPLINK_V4), HTTP_PORT).into()
}

/// The gateway's HTTPS address, seen from the internet.
pub fn https_address() -> SocketAddr {
    (IpAddr::from(HOST_UPLINK_V4), HTTPS_PORT).into()
}

/// The host of a public URL.
pub fn public_host(id: &str, port: u16) -> String {
    format!("{port}-{id}.{GATEWAY_DOMAIN}")
}

/// Reads a sandbox's traffic token from the agent's state.
///
/// # Errors
/// The agent has no state for the sandbox, or no token in it.
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

    /// The traffic token that a private public URL requires.
    #[track_caller]
    pub fn traffic_token(&self) -> String {
        read_traffic_token(&self.testbed.agent(), &self.id).or_fail("the sandbox's traffic token")
    }
}
