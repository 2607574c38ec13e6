//! The rules, applied to what a connection asks for.

use std::{net::SocketAddr, sync::Arc};

use policy_common::reason::Reason;

use crate::{
    agent::Rules,
    policy::{Destination, Explanation, RuleRef, explain_packet},
};

/// IP protocol number of TCP.
const TCP: u8 = 6;
/// Where line 7 judges by the Host of requests.
pub const HTTP: u16 = 80;
/// Where line 7 judges by the SNI.
pub const HTTPS: u16 = 443;

/// What becomes of a connection to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is judged by the name that it asks for.
    ByName,
    /// The tunnel carries it to the address.
    Carried(Explanation),
    /// It does not belong here: the kernel hands nothing like it over under these rules.
    Stray(Explanation),
}

/// What becomes of a connection, before anything is read from it.
pub fn way(rules: &Rules, destination: SocketAddr) -> Way {
    let floor = &*rules.floor;
    if rules.policy.tunnel().is_none() {
        // The kernel has looked into the sandbox's lists already, which may be long.
        let named = matches!(destination.port(), HTTP | HTTPS) && rules.policy.has_names();
        let address = destination.ip();
        // The gateway may listen at the host's own addresses, whatever the packets may do there.
        let named = named && (floor.admits(address) || floor.denies_as_host(address));
        return if named { Way::ByName } else { Way::Stray(stray()) };
    }
    let packet = explain_packet(&rules.policy, floor, &packet(destination));
    match packet.reason {
        Reason::ByName => Way::ByName,
        _ if packet.tunnel => Way::Carried(packet),
        reason if !reason.passes() => Way::Stray(packet),
        _ => Way::Stray(stray()),
    }
}

/// The packet that a connection to an address begins with.
pub const fn packet(destination: SocketAddr) -> Destination {
    let (address, port) = (destination.ip(), Some(destination.port()));
    Destination { address, protocol: TCP, port, host: None }
}

fn stray() -> Explanation {
    let reason = Reason::ProxyUnavailable;
    Explanation {
        allowed: false,
        reason,
        line: reason.line(),
        rule: None,
        by_name: false,
        tunnel: false,
    }
}

/// What a connection is judged by, at first and whenever the rules change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The address that it goes to.
    Address,
    /// The name that it asks for, or that it asks for none.
    Name(Option<Arc<str>>),
}

impl Subject {
    /// The name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => name.as_deref(),
            Self::Address => None,
        }
    }
}

/// Whether a connection is let out.
pub fn judge(rules: &Rules, destination: SocketAddr, subject: &Subject) -> Explanation {
    match (way(rules, destination), subject) {
        (Way::ByName, Subject::Name(name)) => rules.by_name(name.as_deref(), destination.ip()),
        (Way::Carried(explanation), Subject::Address) | (Way::Stray(explanation), _) => explanation,
        // The rules have changed: what it was judged by is not what it would be judged by now.
        _ => stray(),
    }
}

/// Why a connection is let out or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grounds {
    /// The reason.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<RuleRef>,
}

impl From<Reason> for Grounds {
    fn from(reason: Reason) -> Self {
        Self { reason, rule: None }
    }
}

impl From<Explanation> for Grounds {
    fn from(explanation: Explanation) -> Self {
        Self { reason: explanation.reason, rule: explanation.rule }
    }
}

/// Why a connection ends before it is let out.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Its client is gone, or the agent closed it: there is nobody to tell.
    Gone,
    /// It is refused.
    Refused(Grounds),
}

impl<G: Into<Grounds>> From<G> for End {
    fn from(grounds: G) -> Self {
        Self::Refused(grounds.into())
    }
}
