//! The verdict that the policy gives a frame: a plain, slow and obvious reading of
//! `docs/policy.md`, written from its text and not from the kernel programs. This crate evaluates
//! lines 1 to 3 of the precedence on the raw bytes. The agent's own evaluation covers lines 4 to 9.
//! Tests compare the kernel's verdicts with it. There is no egress proxy: traffic for the proxy is
//! denied.
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

/// An Ethernet address.
pub type MacAddr = [u8; 6];

/// The origin of a frame to the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundOrigin {
    /// The host sent it.
    Host,
    /// The host forwarded it.
    Forwarded,
}

/// The verdict on a frame, and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OracleVerdict {
    /// The reason, which determines the verdict.
    pub reason: Reason,
    /// The rule that decided, if one did.
    pub rule: Option<RuleRef>,
}

impl From<Reason> for OracleVerdict {
    fn from(reason: Reason) -> Self {
        Self { reason, rule: None }
    }
}

/// The addresses of the sandbox.
#[derive(Clone, Debug)]
pub struct OracleIdentity {
    /// Its MAC address, if known.
    pub mac: Option<MacAddr>,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
}

/// The policy of one sandbox, and the state that verdicts depend on.
pub struct PacketOracle {
    identity: OracleIdentity,
    /// Whether the setting is `inbound = "host"`.
    host_only: bool,
    active_policy: Option<(Policy, Floor)>,
    /// Incremented with each policy, to identify the policy that judged the first fragment.
    policy_generation: usize,
    admitted: HashSet<InboundConnection>,
    /// TCP connections that the sandbox itself opened or closed. The kernel forgets them after a
    /// while.
    own_connections: HashSet<InboundConnection>,
    first_fragments: HashMap<FragmentKey, (usize, Reason)>,
}

impl PacketOracle {
    /// Creates the oracle for a sandbox without a policy.
    pub fn new(identity: OracleIdentity, host_only: bool) -> Self {
        Self {
            identity,
            host_only,
            active_policy: None,
            policy_generation: 0,
            admitted: HashSet::new(),
            own_connections: HashSet::new(),
            first_fragments: HashMap::new(),
        }
    }

    /// Puts a policy into force.
    pub fn publish(&mut self, policy: Policy, floor: Floor) {
        self.active_policy = Some((policy, floor));
        self.policy_generation += 1;
    }

    /// Ends all inbound connections, as their time limits would.
    pub fn end_inbound_connections(&mut self) {
        self.admitted.clear();
    }

    /// Returns the verdict on a frame from the sandbox.
    pub fn from_sandbox(&mut self, frame: &[u8]) -> OracleVerdict {
        self.judge(frame).unwrap_or_else(OracleVerdict::from)
    }

    /// Applies the precedence: the first line that matches decides. `Err` is a drop without a rule.
    fn judge(&mut self, frame: &[u8]) -> Result<OracleVerdict, Reason> {
        // Line 1: malformed, spoofed, or of a kind that no rule covers.
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
        // Line 1 again, for packets that are judged by their addresses.
        if !self.identity.addresses.contains(&datagram.source) {
            return Err(Reason::SpoofedIp);
        }
        if let FragmentPart::Later(offset) = datagram.part {
            return self.judge_later_fragment(&datagram, offset);
        }
        let transport = TransportHeader::parse(&datagram)?;
        let judgement = self.judge_lines_3_to_9(&datagram, &transport)?;
        if judgement.reason.passes() {
            self.follow_own_connection(&datagram, &transport);
        }
        if datagram.part == FragmentPart::First && judgement.reason.passes() {
            self.first_fragments
                .insert(datagram.fragment_key(), (self.policy_generation, judgement.reason));
        }
        Ok(judgement)
    }

    /// Applies lines 3 to 9.
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
            // The proxy's socket receives whole segments only.
            let whole = datagram.part == FragmentPart::Whole && !datagram.is_atomic;
            return Err(if whole { Reason::ProxyUnavailable } else { Reason::Fragment });
        }
        Ok(OracleVerdict { reason: explanation.reason, rule: explanation.rule })
    }

    /// Remembers TCP connections that the sandbox opens, and those of its own that it closes.
    fn follow_own_connection(&mut self, datagram: &IpHeader<'_>, transport: &TransportHeader) {
        let Some(connection) = inbound_connection::tcp_connection_of(datagram, transport) else {
            return;
        };
        if transport.opens_connection() {
            self.admitted.remove(&connection);
            self.own_connections.insert(connection);
        } else if transport.is_tcp_fin() && !self.admitted.contains(&connection) {
            self.own_connections.insert(connection);
        }
    }

    /// The reason of the verdict about what the sandbox sends to an address with a protocol that
    /// has no ports, or with ports that do not matter.
    fn reason_towards(&self, address: IpAddr, protocol: u8) -> Reason {
        let Some((policy, floor)) = self.active_policy.as_ref() else { return Reason::NoPolicy };
        let destination = FlowDestination { address, protocol, port: None, host: None };
        policy::evaluate_packet(policy, floor, &destination).reason
    }

    /// A later fragment passes if its first fragment passed under the current policy, and if it
    /// does not overlap the transport header that was judged.
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

    /// Returns the verdict on a frame to the sandbox.
    pub fn to_sandbox(&mut self, frame: &[u8], origin: InboundOrigin) -> Reason {
        match inbound_start(frame) {
            Ok(Some(start)) => {
                // The origin of a fragment is unknown.
                let origin = if start.is_whole { origin } else { InboundOrigin::Forwarded };
                let closed = self.host_only && origin == InboundOrigin::Forwarded;
                if closed && self.may_open_connection(&start) {
                    return Reason::InboundRefused;
                }
                self.admitted.extend(start.connection.filter(|_| self.admits(&start, origin)));
            }
            Ok(None) => {}
            // A frame that cannot be parsed could start a connection.
            Err(_) if self.host_only && origin == InboundOrigin::Forwarded => {
                return Reason::InboundRefused;
            }
            Err(_) => {}
        }
        Reason::Delivered
    }

    /// Returns whether a packet may open a connection. One of a protocol that is not tracked may
    /// also be an answer, if the policy allows what it would answer.
    fn may_open_connection(&self, start: &InboundStart) -> bool {
        let allowed = |protocol| self.reason_towards(start.source, protocol).passes();
        start.opens_connection
            || start.untracked_protocol.is_some_and(|protocol| !allowed(protocol))
    }

    /// Returns whether the connection counts as admitted. TCP: from any origin, but not if the
    /// sandbox opened it, unless the host did as well. Other protocols: from the host only, and
    /// not if the sandbox may always send there.
    fn admits(&self, start: &InboundStart, origin: InboundOrigin) -> bool {
        let from_host = origin == InboundOrigin::Host;
        match start.connection {
            Some(connection) if connection.protocol == transport_header::PROTOCOL_TCP => {
                let own = self.own_connections.contains(&connection);
                start.opens_connection && (from_host || !own)
            }
            Some(connection) => {
                let towards = self.reason_towards(start.source, connection.protocol);
                from_host && towards != Reason::PlatformAllow
            }
            None => false,
        }
    }
}

/// What a frame to the sandbox can start.
struct InboundStart {
    source: IpAddr,
    connection: Option<InboundConnection>,
    /// Whether it certainly starts something: a TCP SYN, an echo request, or an SCTP INIT.
    opens_connection: bool,
    /// The protocol, if its connections are not tracked.
    untracked_protocol: Option<u8>,
    /// Whether it is not a fragment.
    is_whole: bool,
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
    let tracked = [
        transport_header::PROTOCOL_TCP,
        transport_header::PROTOCOL_UDP,
        transport_header::PROTOCOL_ICMP,
        transport_header::PROTOCOL_ICMPV6,
    ];
    let protocol = datagram.protocol;
    Ok(Some(InboundStart {
        source: datagram.source,
        connection: inbound_connection::connection_started_by(&datagram, &transport),
        opens_connection: transport.opens_connection()
            || transport.is_echo_request()
            || transport_header::opens_sctp_association(&datagram),
        untracked_protocol: (!tracked.contains(&protocol)).then_some(protocol),
        is_whole: datagram.part == FragmentPart::Whole,
    }))
}
