//! What the law says about a frame: a plain, slow and obvious reading of `docs/policy.md`, written
//! from its text and not from the kernel programs. Lines 1 to 3 are judged here on the raw bytes;
//! lines 4 to 9 by the agent's own oracle. The tests hold the kernel against it. There is no egress
//! proxy: what is for it is refused.
//!
//! ```text
//! frame ─► ethernet ─► datagram (chain of headers) ─► discovery (line 2)
//!                        └► fragments ─► transport ─► connection (line 3) ─► lines 4 to 9
//! ```

mod connection;
mod datagram;
mod discovery;
mod ethernet;
mod transport;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use policy_agent::policy::{self, Destination, Floor, Policy, RuleRef};
use policy_common::reason::Reason;

use self::{
    connection::Connection,
    datagram::{Datagram, Fragment, Part},
    ethernet::Ethernet,
    transport::Transport,
};
use crate::{kernel::Origin, packet::Mac};

/// The verdict about a frame, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Why; the verdict follows from it.
    pub reason: Reason,
    /// The rule, where one decided.
    pub rule: Option<RuleRef>,
}

impl From<Reason> for Judgement {
    fn from(reason: Reason) -> Self {
        Self { reason, rule: None }
    }
}

/// Who the sandbox is on the wire.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its MAC address, if that is known.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The law, applied to one sandbox.
pub struct Oracle {
    identity: Identity,
    /// `inbound = "host"`.
    host_only: bool,
    in_force: Option<(Policy, Floor)>,
    /// Counts the policies, so that a fragment knows under which its first was judged.
    policy: usize,
    let_in: HashSet<Connection>,
    firsts: HashMap<Fragment, (usize, Reason)>,
}

impl Oracle {
    /// A sandbox that has no policy yet.
    pub fn new(identity: Identity, host_only: bool) -> Self {
        Self {
            identity,
            host_only,
            in_force: None,
            policy: 0,
            let_in: HashSet::new(),
            firsts: HashMap::new(),
        }
    }

    /// A policy comes into force.
    pub fn publish(&mut self, policy: Policy, floor: Floor) {
        self.in_force = Some((policy, floor));
        self.policy += 1;
    }

    /// The sandbox sends a frame.
    pub fn from_sandbox(&mut self, frame: &[u8]) -> Judgement {
        self.judge(frame).unwrap_or_else(Judgement::from)
    }

    /// The precedence: the first line that matches decides. `Err`: a drop that names no rule.
    fn judge(&mut self, frame: &[u8]) -> Result<Judgement, Reason> {
        // Line 1: malformed, spoofed, or of a kind that no rule can judge.
        let ethernet = Ethernet::parse(frame)?;
        if self.identity.mac.is_some_and(|mac| mac != ethernet.source) {
            return Err(Reason::SpoofedMac);
        }
        let datagram = match ethernet.ethertype {
            ethernet::ARP => {
                return Ok(discovery::arp(&self.identity, &ethernet).into());
            }
            ethernet::IPV4 => Datagram::v4(ethernet.payload)?,
            ethernet::IPV6 => Datagram::v6(ethernet.payload)?,
            _ => return Err(Reason::UnknownEthertype),
        };
        // Line 2: neighbour discovery.
        if discovery::is_discovery(&datagram) {
            return Ok(discovery::icmpv6(&self.identity, &ethernet, &datagram).into());
        }
        // Line 1 again, of what is judged by its addresses.
        if !self.identity.addresses.contains(&datagram.source) {
            return Err(Reason::SpoofedIp);
        }
        if let Part::Later(offset) = datagram.part {
            return self.later_fragment(&datagram, offset);
        }
        let transport = Transport::parse(&datagram)?;
        let judgement = self.by_state_and_destination(&datagram, &transport)?;
        if datagram.part == Part::First && judgement.reason.passes() {
            self.firsts.insert(datagram.fragment(), (self.policy, judgement.reason));
        }
        Ok(judgement)
    }

    /// Lines 3 to 9.
    fn by_state_and_destination(
        &self,
        datagram: &Datagram<'_>,
        transport: &Transport,
    ) -> Result<Judgement, Reason> {
        if connection::is_foreign_error(datagram, transport) {
            return Err(Reason::ForeignError);
        }
        let (policy, floor) = self.in_force.as_ref().ok_or(Reason::NoPolicy)?;
        let belongs_to = connection::answered_by(datagram, transport);
        if belongs_to.is_some_and(|connection| self.let_in.contains(&connection)) {
            return Ok(Reason::Reply.into());
        }
        let explanation = policy::explain_packet(
            policy,
            floor,
            &Destination {
                address: datagram.destination,
                protocol: datagram.protocol,
                port: transport.destination_port(),
                host: None,
            },
        );
        if explanation.reason == Reason::ByName || explanation.tunnel {
            // A socket takes segments, and no parts of them.
            let whole = datagram.part == Part::Whole && !datagram.atomic;
            return Err(if whole { Reason::ProxyUnavailable } else { Reason::Fragment });
        }
        Ok(Judgement { reason: explanation.reason, rule: explanation.rule })
    }

    /// A later fragment passes after its first, if that passed under the present policy, and if it
    /// does not reach into the transport header that was judged.
    fn later_fragment(&self, datagram: &Datagram<'_>, offset: usize) -> Result<Judgement, Reason> {
        if self.in_force.is_none() {
            return Err(Reason::NoPolicy);
        }
        let overlaps = offset < transport::minimum(datagram.protocol);
        match self.firsts.get(&datagram.fragment()) {
            Some((policy, reason)) if *policy == self.policy && !overlaps => Ok((*reason).into()),
            _ => Err(Reason::Fragment),
        }
    }

    /// A frame is on its way to the sandbox.
    pub fn to_sandbox(&mut self, frame: &[u8], origin: Origin) -> Reason {
        match started_by(frame) {
            Ok(Some(start)) => {
                // Who made a fragment is not to be known.
                let origin = if start.is_whole { origin } else { Origin::Elsewhere };
                let closed = self.host_only && origin == Origin::Elsewhere;
                if start.is_new && closed {
                    return Reason::InboundRefused;
                }
                self.let_in.extend(start.connection.filter(|_| start.counts(origin)));
            }
            Ok(None) => {}
            // What cannot be read could start anything.
            Err(_) if self.host_only && origin == Origin::Elsewhere => {
                return Reason::InboundRefused;
            }
            Err(_) => {}
        }
        Reason::Delivered
    }
}

/// What a frame towards the sandbox may start.
struct Start {
    connection: Option<Connection>,
    /// It starts something for sure: TCP's SYN, an echo request, protocols that nobody follows.
    is_new: bool,
    /// It is no fragment.
    is_whole: bool,
}

impl Start {
    /// Whether it counts as let in: TCP from anywhere, the rest from the host only.
    fn counts(&self, origin: Origin) -> bool {
        if self.connection.is_some_and(|connection| connection.protocol == transport::TCP) {
            self.is_new
        } else {
            origin == Origin::Host
        }
    }
}

fn started_by(frame: &[u8]) -> Result<Option<Start>, Reason> {
    let ethernet = Ethernet::parse(frame)?;
    let datagram = match ethernet.ethertype {
        ethernet::IPV4 => Datagram::v4(ethernet.payload)?,
        ethernet::IPV6 => Datagram::v6(ethernet.payload)?,
        _ => return Ok(None),
    };
    if matches!(datagram.part, Part::Later(_)) {
        return Ok(None);
    }
    let transport = Transport::parse(&datagram)?;
    let followed = [transport::TCP, transport::UDP, transport::ICMP, transport::ICMPV6];
    Ok(Some(Start {
        connection: connection::started_by(&datagram, &transport),
        is_new: transport.opens()
            || transport.is_echo_request()
            || !followed.contains(&datagram.protocol),
        is_whole: datagram.part == Part::Whole,
    }))
}
