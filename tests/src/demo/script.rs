//! What is played: policies, and what should become of attempts under them.

use serde_json::{Value, json};

use super::{
    act::{Act, Attempt, Row, Turn},
    page::Page,
};
use crate::{
    probe::{
        How::{self, Ping, Tcp, Udp},
        Seen::{self, Answered, Forbidden, Prohibited, Refused},
    },
    server::{DNS, HTTP, HTTPS, SSH},
};

const fn row(how: How, to: &'static str, expected: Seen) -> Row {
    Row { attempt: Attempt::Address(how, to), expected }
}

const fn page(scheme: &'static str, host: &'static str, expected: Seen) -> Row {
    Row { attempt: Attempt::Page(Page { scheme, host, forged: None }), expected }
}

/// The sandbox's hosts file says that the name has this address.
const fn forged(
    scheme: &'static str,
    host: &'static str,
    address: &'static str,
    expected: Seen,
) -> Row {
    Row { attempt: Attempt::Page(Page { scheme, host, forged: Some(address) }), expected }
}

fn act(title: &'static str, sandbox: &'static str, config: Value, rows: Vec<Row>) -> Act {
    Act { title, sandbox, turn: Turn::Apply(config), rows }
}

/// What is played before the agent's commands are shown.
pub(super) fn acts() -> Vec<Act> {
    vec![deny_all_but(), deny_one(), no_internet(), no_internet_but(), names(), tightened()]
}

fn deny_all_but() -> Act {
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1", "8.8.8.0/24"] });
    let rows = vec![
        row(Tcp(HTTPS), "1.1.1.1", Answered),
        row(Udp(DNS), "8.8.8.8", Answered),
        row(Ping, "8.8.8.9", Answered),
        row(Tcp(HTTPS), "203.0.113.10", Refused),
        row(Udp(DNS), "198.51.100.7", Prohibited),
        row(Tcp(HTTPS), "2606:4700:4700::1111", Refused),
        row(Tcp(HTTP), "169.254.169.254", Refused),
    ];
    act("Deny all but an address and a network", "alpha", json!({ "network": network }), rows)
}

fn deny_one() -> Act {
    let network = json!({ "denyOut": ["8.8.8.8"] });
    let rows = vec![
        row(Udp(DNS), "8.8.8.8", Prohibited),
        row(Udp(DNS), "8.8.8.9", Answered),
        row(Tcp(HTTPS), "2001:db8:1::1", Answered),
        row(Tcp(HTTP), "10.99.0.1", Refused),
        row(Tcp(HTTP), "64:ff9b::a9fe:a9fe", Refused),
    ];
    act("Deny one address", "beta", json!({ "network": network }), rows)
}

fn no_internet() -> Act {
    let rows = vec![
        row(Tcp(HTTPS), "1.1.1.1", Refused),
        row(Ping, "8.8.8.8", Prohibited),
        row(Tcp(HTTPS), "2001:db8:1::1", Refused),
    ];
    act("No internet", "beta", json!({ "allowInternetAccess": false }), rows)
}

fn no_internet_but() -> Act {
    let network = json!({ "allowOut": ["1.1.1.1"] });
    let rows = vec![row(Tcp(HTTPS), "1.1.1.1", Answered), row(Ping, "8.8.8.8", Prohibited)];
    let config = json!({ "allowInternetAccess": false, "network": network });
    act("No internet, but allowOut wins", "beta", config, rows)
}

fn names() -> Act {
    let allow = ["shop.example", "*.cdn.example", "1.1.1.1"];
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": allow });
    let rows = vec![
        page("https", "shop.example", Answered),
        page("http", "shop.example", Answered),
        page("https", "img.cdn.example", Answered),
        page("https", "cdn.example", Refused),
        page("https", "evil.test", Refused),
        page("http", "evil.test", Forbidden),
        forged("https", "shop.example", "198.51.100.23", Answered),
        forged("http", "shop.example", "198.51.100.23", Answered),
        page("https", "198.51.100.23", Refused),
        page("https", "1.1.1.1", Answered),
        row(Udp(HTTPS), "198.51.100.7", Prohibited),
        row(Udp(DNS), "8.8.8.8", Answered),
    ];
    let title = "Deny all but names; where a forged hosts file points to does not matter";
    act(title, "beta", json!({ "network": network }), rows)
}

fn tightened() -> Act {
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1"] });
    Act {
        title: "A connection to 8.8.8.8 stands, then 8.8.8.0/24 is taken out of allowOut",
        sandbox: "alpha",
        turn: Turn::ApplyWhileConnected(json!({ "network": network }), "8.8.8.8"),
        rows: vec![
            row(Tcp(SSH), "8.8.8.8", Refused),
            row(Tcp(HTTPS), "8.8.8.9", Refused),
            row(Tcp(HTTPS), "1.1.1.1", Answered),
        ],
    }
}

/// What is played at the end.
pub(super) fn finale() -> Act {
    Act {
        title: "The agent is killed (kill -9); the kernel goes on enforcing",
        sandbox: "alpha",
        turn: Turn::KillAgent,
        rows: vec![row(Tcp(HTTPS), "1.1.1.1", Answered), row(Tcp(HTTPS), "8.8.8.8", Refused)],
    }
}
