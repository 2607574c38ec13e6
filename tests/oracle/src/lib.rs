//! The verdict that the policy gives a frame: a plain, slow and obvious reading of
//! `docs/policy.md`, written from its text. It shares no code with the agent or with the kernel
//! programs, so that no mistake is in both. Tests compare the kernel's verdicts with it. There is no
//! egress proxy: traffic for the proxy is denied.
//!
//! ```text
//! frame ─► ethernet ─► datagram (chain of headers) ─► discovery (line 2)
//!                        └► fragments ─► transport ─► connection (line 3) ─► destination (4 to 9)
//! ```

mod destination_rules;
mod embedded_address;
mod ethernet_header;
mod floor;
mod inbound_connection;
mod ip_header;
mod neighbor_rules;
mod policy_reader;
mod prefix;
mod reason;
mod rule_list;
mod transport_header;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use serde_json::Value;

use self::{
    destination_rules::{DestinationVerdict, PacketDestination},
    ethernet_header::EthernetHeader,
    floor::OracleFloor,
    inbound_connection::InboundConnection,
    ip_header::{FragmentKey, FragmentPart, IpHeader},
    policy_reader::OraclePolicy,
    transport_header::TransportHeader,
};
pub use self::{floor::FloorLists, reason::OracleReason};

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
    pub reason: OracleReason,
    /// The rule that decided, if one did, as events show it: `network.denyOut[0]: 0.0.0.0/0`.
    pub rule: Option<String>,
}

impl From<OracleReason> for OracleVerdict {
    fn from(reason: OracleReason) -> Self {
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
    active_policy: Option<OraclePolicy>,
    /// Incremented with each policy, to identify the policy that judged the first fragment.
    policy_generation: usize,
    admitted: HashSet<InboundConnection>,
    /// TCP connections that the sandbox itself opened or closed. The kernel forgets them after a
    /// while.
    own_connections: HashSet<InboundConnection>,
    first_fragments: HashMap<FragmentKey, (usize, OracleReason)>,
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

    /// Puts a policy into force: `network` and `allowInternetAccess` of the sandbox's
    /// configuration, and the operator's lists.
    ///
    /// # Panics
    /// The oracle cannot read the configuration.
    pub fn publish(
        &mut self,
        network: &Value,
        allow_internet_access: Option<bool>,
        floor: &FloorLists,
    ) {
        let floor = OracleFloor::read(floor);
        self.active_policy = Some(OraclePolicy::read(network, allow_internet_access, floor));
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
    fn judge(&mut self, frame: &[u8]) -> Result<OracleVerdict, OracleReason> {
        // Line 1: malformed, spoofed, or of a kind that no rule covers.
        let ethernet = EthernetHeader::parse(frame)?;
        if self.identity.mac.is_some_and(|mac| mac != ethernet.source) {
            return Err(OracleReason::SpoofedMac);
        }
        let datagram = match ethernet.ethertype {
            ethernet_header::ETHERTYPE_ARP => {
                return Ok(neighbor_rules::judge_arp(&self.identity, &ethernet).into());
            }
            ethernet_header::ETHERTYPE_IPV4 => IpHeader::parse_v4(ethernet.payload)?,
            ethernet_header::ETHERTYPE_IPV6 => IpHeader::parse_v6(ethernet.payload)?,
            _ => return Err(OracleReason::UnknownEthertype),
        };
        // Line 2: neighbour discovery.
        if neighbor_rules::is_discovery(&datagram) {
            return Ok(neighbor_rules::judge_discovery(&self.identity, &ethernet, &datagram).into());
        }
        // Line 1 again, for packets that are judged by their addresses.
        if !self.identity.addresses.contains(&datagram.source) {
            return Err(OracleReason::SpoofedIp);
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
    ) -> Result<OracleVerdict, OracleReason> {
        if inbound_connection::is_foreign_error(datagram, transport) {
            return Err(OracleReason::ForeignError);
        }
        let policy = self.active_policy.as_ref().ok_or(OracleReason::NoPolicy)?;
        let belongs_to = inbound_connection::connection_answered_by(datagram, transport);
        if belongs_to.is_some_and(|connection| self.admitted.contains(&connection)) {
            return Ok(OracleReason::Reply.into());
        }
        let destination = PacketDestination {
            address: datagram.destination,
            protocol: datagram.protocol,
            port: transport.destination_port(),
        };
        match destination_rules::judge_destination(policy, &destination) {
            DestinationVerdict::Final(verdict) => Ok(verdict),
            DestinationVerdict::ToProxy => {
                // The proxy's socket receives whole segments only.
                let whole = datagram.part == FragmentPart::Whole && !datagram.is_atomic;
                Err(if whole { OracleReason::ProxyUnavailable } else { OracleReason::Fragment })
            }
        }
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
    fn reason_towards(&self, address: IpAddr, protocol: u8) -> OracleReason {
        let Some(policy) = self.active_policy.as_ref() else { return OracleReason::NoPolicy };
        let destination = PacketDestination { address, protocol, port: None };
        match destination_rules::judge_destination(policy, &destination) {
            DestinationVerdict::Final(verdict) => verdict.reason,
            DestinationVerdict::ToProxy => OracleReason::ProxyUnavailable,
        }
    }

    /// A later fragment passes if its first fragment passed under the current policy, and if it
    /// does not overlap the transport header that was judged.
    fn judge_later_fragment(
        &self,
        datagram: &IpHeader<'_>,
        offset: usize,
    ) -> Result<OracleVerdict, OracleReason> {
        if self.active_policy.is_none() {
            return Err(OracleReason::NoPolicy);
        }
        let overlaps = offset < transport_header::min_header_length(datagram.protocol);
        match self.first_fragments.get(&datagram.fragment_key()) {
            Some((policy, reason)) if *policy == self.policy_generation && !overlaps => {
                Ok((*reason).into())
            }
            _ => Err(OracleReason::Fragment),
        }
    }

    /// Returns the verdict on a frame to the sandbox.
    pub fn to_sandbox(&mut self, frame: &[u8], origin: InboundOrigin) -> OracleReason {
        match inbound_start(frame) {
            Ok(Some(start)) => {
                // The origin of a fragment is unknown.
                let origin = if start.is_whole { origin } else { InboundOrigin::Forwarded };
                let closed = self.host_only && origin == InboundOrigin::Forwarded;
                if closed && self.may_open_connection(&start) {
                    return OracleReason::InboundRefused;
                }
                self.admitted.extend(start.connection.filter(|_| self.admits(&start, origin)));
            }
            Ok(None) => {}
            // A frame that cannot be parsed could start a connection.
            Err(_) if self.host_only && origin == InboundOrigin::Forwarded => {
                return OracleReason::InboundRefused;
            }
            Err(_) => {}
        }
        OracleReason::Delivered
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
                from_host && towards != OracleReason::PlatformAllow
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

fn inbound_start(frame: &[u8]) -> Result<Option<InboundStart>, OracleReason> {
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
