//! The scenario: policies, and the expected results of attempts under them.

use serde_json::{Value, json};

use super::{
    page_fetch::PageFetch,
    step::{DemoAttempt, DemoStep, ExpectedAttempt, StepAction},
};
use policy_testbed::{
    probe::{
        ProbeKind::{self, Ping, Tcp, Udp},
        ProbeResult::{self, Answered, Forbidden, Prohibited, Refused},
    },
    test_servers::{DNS_PORT, HTTP_PORT, HTTPS_PORT, SSH_PORT},
};

const fn address_attempt(
    how: ProbeKind,
    to: &'static str,
    expected: ProbeResult,
) -> ExpectedAttempt {
    ExpectedAttempt { attempt: DemoAttempt::Address(how, to), expected }
}

const fn page_attempt(
    scheme: &'static str,
    host: &'static str,
    expected: ProbeResult,
) -> ExpectedAttempt {
    ExpectedAttempt {
        attempt: DemoAttempt::Page(PageFetch { scheme, host, forged_address: None }),
        expected,
    }
}

/// A page whose name has this address in the sandbox's hosts file.
const fn forged_page_attempt(
    scheme: &'static str,
    host: &'static str,
    address: &'static str,
    expected: ProbeResult,
) -> ExpectedAttempt {
    ExpectedAttempt {
        attempt: DemoAttempt::Page(PageFetch { scheme, host, forged_address: Some(address) }),
        expected,
    }
}

fn apply_step(
    title: &'static str,
    sandbox: &'static str,
    config: Value,
    rows: Vec<ExpectedAttempt>,
) -> DemoStep {
    DemoStep { title, sandbox, action: StepAction::Apply(config), attempts: rows }
}

/// The steps before the output of the agent's commands.
pub(crate) fn steps() -> Vec<DemoStep> {
    vec![deny_all_but(), deny_one(), no_internet(), no_internet_but(), domain_rules(), tightened()]
}

fn deny_all_but() -> DemoStep {
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1", "8.8.8.0/24"] });
    let rows = vec![
        address_attempt(Tcp(HTTPS_PORT), "1.1.1.1", Answered),
        address_attempt(Udp(DNS_PORT), "8.8.8.8", Answered),
        address_attempt(Ping, "8.8.8.9", Answered),
        address_attempt(Tcp(HTTPS_PORT), "203.0.113.10", Refused),
        address_attempt(Udp(DNS_PORT), "198.51.100.7", Prohibited),
        address_attempt(Tcp(HTTPS_PORT), "2606:4700:4700::1111", Refused),
        address_attempt(Tcp(HTTP_PORT), "169.254.169.254", Refused),
    ];
    apply_step(
        "Deny all but an address and a network",
        "alpha",
        json!({ "network": network }),
        rows,
    )
}

fn deny_one() -> DemoStep {
    let network = json!({ "denyOut": ["8.8.8.8"] });
    let rows = vec![
        address_attempt(Udp(DNS_PORT), "8.8.8.8", Prohibited),
        address_attempt(Udp(DNS_PORT), "8.8.8.9", Answered),
        address_attempt(Tcp(HTTPS_PORT), "2001:db8:1::1", Answered),
        address_attempt(Tcp(HTTP_PORT), "10.99.0.1", Refused),
        address_attempt(Tcp(HTTP_PORT), "64:ff9b::a9fe:a9fe", Refused),
    ];
    apply_step("Deny one address", "beta", json!({ "network": network }), rows)
}

fn no_internet() -> DemoStep {
    let rows = vec![
        address_attempt(Tcp(HTTPS_PORT), "1.1.1.1", Refused),
        address_attempt(Ping, "8.8.8.8", Prohibited),
        address_attempt(Tcp(HTTPS_PORT), "2001:db8:1::1", Refused),
    ];
    apply_step("No internet", "beta", json!({ "allowInternetAccess": false }), rows)
}

fn no_internet_but() -> DemoStep {
    let network = json!({ "allowOut": ["1.1.1.1"] });
    let rows = vec![
        address_attempt(Tcp(HTTPS_PORT), "1.1.1.1", Answered),
        address_attempt(Ping, "8.8.8.8", Prohibited),
    ];
    let config = json!({ "allowInternetAccess": false, "network": network });
    apply_step("No internet, but allowOut wins", "beta", config, rows)
}

fn domain_rules() -> DemoStep {
    let allow = ["shop.example", "*.cdn.example", "1.1.1.1"];
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allow });
    let rows = vec![
        page_attempt("https", "shop.example", Answered),
        page_attempt("http", "shop.example", Answered),
        page_attempt("https", "img.cdn.example", Answered),
        page_attempt("https", "cdn.example", Refused),
        page_attempt("https", "evil.test", Refused),
        page_attempt("http", "evil.test", Forbidden),
        forged_page_attempt("https", "shop.example", "198.51.100.23", Answered),
        forged_page_attempt("http", "shop.example", "198.51.100.23", Answered),
        page_attempt("https", "198.51.100.23", Refused),
        page_attempt("https", "1.1.1.1", Answered),
        address_attempt(Udp(HTTPS_PORT), "198.51.100.7", Prohibited),
        address_attempt(Udp(DNS_PORT), "8.8.8.8", Answered),
    ];
    let title = "Deny all but names; where a forged hosts file points to does not matter";
    apply_step(title, "beta", json!({ "network": network }), rows)
}

fn tightened() -> DemoStep {
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1"] });
    DemoStep {
        title: "A connection to 8.8.8.8 stands, then 8.8.8.0/24 is taken out of allowOut",
        sandbox: "alpha",
        action: StepAction::ApplyWhileConnected(json!({ "network": network }), "8.8.8.8"),
        attempts: vec![
            address_attempt(Tcp(SSH_PORT), "8.8.8.8", Refused),
            address_attempt(Tcp(HTTPS_PORT), "8.8.8.9", Refused),
            address_attempt(Tcp(HTTPS_PORT), "1.1.1.1", Answered),
        ],
    }
}

/// The step at the end.
pub(crate) fn final_step() -> DemoStep {
    DemoStep {
        title: "The agent is killed (kill -9); the kernel goes on enforcing",
        sandbox: "alpha",
        action: StepAction::KillAgent,
        attempts: vec![
            address_attempt(Tcp(HTTPS_PORT), "1.1.1.1", Answered),
            address_attempt(Tcp(HTTPS_PORT), "8.8.8.8", Refused),
        ],
    }
}
