//! The gateway: public URLs of sandboxes, visited from the internet by real clients, with services of
//! all kinds behind them.

mod answers;
mod balancer;
mod browser;
mod conformance;
mod cross_origin;
mod downgrade;
mod envd;
mod forwarding;
mod http2;
mod lifecycle;
mod limits;
mod log;
mod pooling;
mod reaching;
mod readers;
mod requests;
mod routing;
mod streaming;
mod tls;
mod tokens;
mod trailers;
mod upgrades;

use policy_tests::{
    gateway::{
        CONFIG, PORT,
        recorder::Recorder,
        service::{Service, Website},
    },
    stage::{Guest, OrFail as _, Shared},
};
use serde_json::{Value, json};

/// The stage of all tests to whose agent nothing happens.
static STAGE: Shared = Shared::with_names(CONFIG);

/// A sandbox without a service.
#[track_caller]
fn sandbox(network: Value) -> Guest {
    let sandbox = STAGE.sandbox();
    sandbox.network(network);
    sandbox
}

/// A sandbox whose service records what it gets.
#[track_caller]
fn recorded(network: Value) -> (Guest, Recorder) {
    let sandbox = sandbox(network);
    let recorder = Recorder::start(&sandbox.inside, PORT).or_fail("starting the recorder");
    (sandbox, recorder)
}

/// A sandbox whose service the test plays itself.
#[track_caller]
fn played(network: Value) -> (Guest, Service) {
    let sandbox = sandbox(network);
    let service = Service::listen(&sandbox.inside, PORT).or_fail("listening in the sandbox");
    (sandbox, service)
}

/// A sandbox with a website.
#[track_caller]
fn website(network: Value) -> (Guest, Website) {
    let sandbox = sandbox(network);
    let website = Website::start(&sandbox.inside, PORT, None).or_fail("starting the website");
    (sandbox, website)
}

/// A network with a private public URL.
fn private() -> Value {
    json!({ "allowPublicTraffic": false })
}
