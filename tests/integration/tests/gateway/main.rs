//! The gateway: real clients in the internet open public URLs of sandboxes with services of all
//! kinds.

mod access_log;
mod body_streaming;
mod browser;
mod certificates;
mod client_networks;
mod connection_lifecycle;
mod connection_limits;
mod cross_origin;
mod draining;
mod grpc;
mod host_routing;
mod http2_clients;
mod http2_downgrade;
mod http2_services;
mod issued_tokens;
mod odd_requests;
mod odd_responses;
mod request_forwarding;
mod request_smuggling;
mod sdk_daemon;
mod slow_readers;
mod tcp_tunnels;
mod traffic_tokens;
mod trailers;
mod trusted_proxies;
mod upgrades;
mod upstream_addresses;
mod upstream_pool;

use policy_testbed::{
    public_url::{
        GATEWAY_CONFIG, SERVICE_PORT,
        manual_service::{ManualService, SandboxWebsite},
        recording_service::RecordingService,
    },
    testbed::{OrFail as _, SharedTestbed, TestSandbox},
};
use serde_json::{Value, json};

/// The testbed of all tests that leave the agent undisturbed.
static TESTBED: SharedTestbed = SharedTestbed::with_names(GATEWAY_CONFIG);

/// A sandbox without a service.
#[track_caller]
fn gateway_sandbox(network: Value) -> TestSandbox {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(network);
    sandbox
}

/// A sandbox whose service records what it receives.
#[track_caller]
fn recording_sandbox(network: Value) -> (TestSandbox, RecordingService) {
    let sandbox = gateway_sandbox(network);
    let recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("starting the recorder");
    (sandbox, recorder)
}

/// A sandbox whose service is the test itself.
#[track_caller]
fn manual_sandbox(network: Value) -> (TestSandbox, ManualService) {
    let sandbox = gateway_sandbox(network);
    let service =
        ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening in the sandbox");
    (sandbox, service)
}

/// A sandbox with a website.
#[track_caller]
fn website_sandbox(network: Value) -> (TestSandbox, SandboxWebsite) {
    let sandbox = gateway_sandbox(network);
    let website = SandboxWebsite::start(&sandbox.namespace, SERVICE_PORT, None)
        .or_fail("starting the website");
    (sandbox, website)
}

/// A network configuration with a private public URL.
fn private_network() -> Value {
    json!({ "allowPublicTraffic": false })
}
