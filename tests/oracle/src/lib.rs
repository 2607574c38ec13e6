//! What the law says about a frame: a plain, slow and obvious reading of `docs/policy.md`, written
//! from its text and not from the kernel programs. Lines 1 to 3 are judged here on the raw bytes;
//! lines 4 to 9 by the agent's own oracle. The tests hold the kernel against it. There is no egress
//! proxy: what is for it is refused.
//!
//! ```text
//! frame ─► ethernet ─► datagram (chain of headers) ─► discovery (line 2)
//!                        └► fragments ─► transport ─► connection (line 3) ─► lines 4 to 9
//! ```

mod ethernet_header;
mod inbound_connection;
mod ip_header;
mod neighbor_rules;
mod transport_header;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use policy_agent::policy::{self, Floor, FlowDestination, Policy, RuleRef};
use policy_common::reason::Reason;

use self::{
    ethernet_header::EthernetHeader,
    inbound_connection::InboundConnection,
    ip_header::{FragmentKey, FragmentPart, IpHeader},
    transport_header::TransportHeader,
};

/// A hardware address.
pub type MacAddr = [u8; 6];

/// Where a frame towards the sandbox comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundOrigin {
    /// The host made it.
    Host,
    /// The host forwards it.
    Forwarded,
}

/// The verdict about a frame, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OracleVerdict {
    /// Why; the verdict follows from it.
    pub reason: Reason,
    /// The rule, where one decided.
    pub rule: Option<RuleRef>,
}

impl From<Reason> for OracleVerdict {
    fn from(reason: Reason) -> Self {
        Self { reason, rule: None }
    }
}

/// Who the sandbox is on the wire.
#[derive(Clone, Debug)]
pub struct OracleIdentity {
    /// Its MAC address, if that is known.
    pub mac: Option<MacAddr>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The law, applied to one sandbox.
pub struct PacketOracle {
    identity: OracleIdentity,
    /// `inbound = "host"`.
    host_only: bool,
    active_policy: Option<(Policy, Floor)>,
    /// Counts the policies, so that a fragment knows under which its first was judged.
    policy_generation: usize,
    admitted: HashSet<InboundConnection>,
    first_fragments: HashMap<FragmentKey, (usize, Reason)>,
}

impl PacketOracle {
    /// A sandbox that has no policy yet.
    pub fn new(identity: OracleIdentity, host_only: bool) -> Self {
        Self {
            identity,
            host_only,
            active_policy: None,
            policy_generation: 0,
            admitted: HashSet::new(),
            first_fragments: HashMap::new(),
        }
    }

    /// A policy comes into force.
    pub fn publish(&mut self, policy: Policy, floor: Floor) {
        self.active_policy = Some((policy, floor));
        self.policy_generation += 1;
    }

    /// The sandbox sends a frame.
    pub fn from_sandbox(&mut self, frame: &[u8]) -> OracleVerdict {
        self.judge(frame).unwrap_or_else(OracleVerdict::from)
    }

    /// The precedence: the first line that matches decides. `Err`: a drop that names no rule.
    fn judge(&mut self, frame: &[u8]) -> Result<OracleVerdict, Reason> {
        // Line 1: malformed, spoofed, or of a kind that no rule can judge.
        let ethernet = EthernetHeader::parse(frame)?;
        if self.identity.mac.is_some_and(|mac| mac != ethernet.source) {
            return Err(Reason::SpoofedMac);
        }
        let datagram = match ethernet.ethertype {
            ethernet_header::ETHERTYPE_ARP => {
                return Ok(neighbor_rules::judge_arp(&self.identity, &ethernet).into());
            }
            ethernet_header::ETHERTYPE_IPV4 => IpHeader::parse_v4(ethernet.payload)?,
            ethernet_header::ETHERTYPE_IPV6 => IpHeader::parse_v6(ethernet.payload)?,
            _ => return Err(Reason::UnknownEthertype),
        };
        // Line 2: neighbour discovery.
        if neighbor_rules::is_discovery(&datagram) {
            return Ok(neighbor_rules::judge_discovery(&self.identity, &ethernet, &datagram).into());
        }
        // Line 1 again, of what is judged by its addresses.
        if !self.identity.addresses.contains(&datagram.source) {
            return Err(Reason::SpoofedIp);
        }
        if let FragmentPart::Later(offset) = datagram.part {
            return self.judge_later_fragment(&datagram, offset);
        }
        let transport = TransportHeader::parse(&datagram)?;
        let judgement = self.judge_lines_3_to_9(&datagram, &transport)?;
        if datagram.part == FragmentPart::First && judgement.reason.passes() {
            self.first_fragments
                .insert(datagram.fragment_key(), (self.policy_generation, judgement.reason));
        }
        Ok(judgement)
    }

    /// Lines 3 to 9.
    fn judge_lines_3_to_9(
        &self,
        datagram: &IpHeader<'_>,
        transport: &TransportHeader,
    ) -> Result<OracleVerdict, Reason> {
        if inbound_connection::is_foreign_error(datagram, transport) {
            return Err(Reason::ForeignError);
        }
        let (policy, floor) = self.active_policy.as_ref().ok_or(Reason::NoPolicy)?;
        let belongs_to = inbound_connection::connection_answered_by(datagram, transport);
        if belongs_to.is_some_and(|connection| self.admitted.contains(&connection)) {
            return Ok(Reason::Reply.into());
        }
        let explanation = policy::evaluate_packet(
            policy,
            floor,
            &FlowDestination {
                address: datagram.destination,
                protocol: datagram.protocol,
                port: transport.destination_port(),
                host: None,
            },
        );
        if explanation.reason == Reason::ByName || explanation.tunnel {
            // A socket takes segments, and no parts of them.
            let whole = datagram.part == FragmentPart::Whole && !datagram.is_atomic;
            return Err(if whole { Reason::ProxyUnavailable } else { Reason::Fragment });
        }
        Ok(OracleVerdict { reason: explanation.reason, rule: explanation.rule })
    }

    /// A later fragment passes after its first, if that passed under the present policy, and if it
    /// does not reach into the transport header that was judged.
    fn judge_later_fragment(
        &self,
        datagram: &IpHeader<'_>,
        offset: usize,
    ) -> Result<OracleVerdict, Reason> {
        if self.active_policy.is_none() {
            return Err(Reason::NoPolicy);
        }
        let overlaps = offset < transport_header::min_header_length(datagram.protocol);
        match self.first_fragments.get(&datagram.fragment_key()) {
            Some((policy, reason)) if *policy == self.policy_generation && !overlaps => {
                Ok((*reason).into())
            }
            _ => Err(Reason::Fragment),
        }
    }

    /// A frame is on its way to the sandbox.
    pub fn to_sandbox(&mut self, frame: &[u8], origin: InboundOrigin) -> Reason {
        match inbound_start(frame) {
            Ok(Some(start)) => {
                // Who made a fragment is not to be known.
                let origin = if start.is_whole { origin } else { InboundOrigin::Forwarded };
                let closed = self.host_only && origin == InboundOrigin::Forwarded;
                if start.opens_connection && closed {
                    return Reason::InboundRefused;
                }
                self.admitted.extend(start.connection.filter(|_| start.counts_as_admitted(origin)));
            }
            Ok(None) => {}
            // What cannot be read could start anything.
            Err(_) if self.host_only && origin == InboundOrigin::Forwarded => {
                return Reason::InboundRefused;
            }
            Err(_) => {}
        }
        Reason::Delivered
    }
}

/// What a frame towards the sandbox may start.
struct InboundStart {
    connection: Option<InboundConnection>,
    /// It starts something for sure: TCP's SYN, an echo request, protocols that nobody follows.
    opens_connection: bool,
    /// It is no fragment.
    is_whole: bool,
}

impl InboundStart {
    /// Whether it counts as let in: TCP from anywhere, the rest from the host only.
    fn counts_as_admitted(&self, origin: InboundOrigin) -> bool {
        if self
            .connection
            .is_some_and(|connection| connection.protocol == transport_header::PROTOCOL_TCP)
        {
            self.opens_connection
        } else {
            origin == InboundOrigin::Host
        }
    }
}

fn inbound_start(frame: &[u8]) -> Result<Option<InboundStart>, Reason> {
    let ethernet = EthernetHeader::parse(frame)?;
    let datagram = match ethernet.ethertype {
        ethernet_header::ETHERTYPE_IPV4 => IpHeader::parse_v4(ethernet.payload)?,
        ethernet_header::ETHERTYPE_IPV6 => IpHeader::parse_v6(ethernet.payload)?,
        _ => return Ok(None),
    };
    if matches!(datagram.part, FragmentPart::Later(_)) {
        return Ok(None);
    }
    let transport = TransportHeader::parse(&datagram)?;
    let followed = [
        transport_header::PROTOCOL_TCP,
        transport_header::PROTOCOL_UDP,
        transport_header::PROTOCOL_ICMP,
        transport_header::PROTOCOL_ICMPV6,
    ];
    Ok(Some(InboundStart {
        connection: inbound_connection::connection_started_by(&datagram, &transport),
        opens_connection: transport.opens_connection()
            || transport.is_echo_request()
            || !followed.contains(&datagram.protocol),
        is_whole: datagram.part == FragmentPart::Whole,
    }))
}
