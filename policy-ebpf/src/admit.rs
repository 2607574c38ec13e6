//! What comes towards the sandbox: remembered when it starts a connection, refused when the
//! operator lets in the host's own connections only.
//!
//! TCP counts as let in from its SYN. UDP and ICMP echo count only when the host itself sent
//! them: a server's late answer must not turn an outbound flow into an inbound one.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use policy_common::{reason::Reason, sandbox::INBOUND_FROM_HOST};

use crate::{
    context::{Hook, Seen},
    decide,
    header::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Header, ICMP, ICMPV6, Part, TCP, UDP},
    inbound::{self, ECHO_REQUEST, ECHO_REQUEST_V6, Ports},
    maps::INBOUND,
    outcome::Judgement,
    transport::{self, Transport},
};

/// Judges a packet towards the sandbox. `from_host`: the host itself made it.
#[inline(always)]
pub fn to_sandbox(hook: &Hook, seen: &mut Seen, from_host: bool) -> Judgement {
    let sandbox = decide::sandbox(hook)?;
    let ethertype = header::ethertype(hook);
    seen.ethertype = ethertype.unwrap_or_default();
    let parsed = match ethertype {
        Ok(ETHERTYPE_IPV4) => header::ipv4(hook, &mut seen.header),
        Ok(ETHERTYPE_IPV6) => header::ipv6(hook, &mut seen.header),
        Ok(_) => return Ok(Reason::Delivered.into()),
        Err(reason) => Err(reason),
    };
    // A fragment may have been forwarded: the kernel loses where it came from when it takes a datagram
    // apart again that it had put together.
    let from_host = from_host && seen.header.part == Part::Whole;
    let closed = sandbox.flags & INBOUND_FROM_HOST != 0 && !from_host;
    match parsed.and_then(|()| start(hook, seen, from_host, closed)) {
        Ok(true) | Err(_) if closed => Err(Reason::InboundRefused.into()),
        _ => Ok(Reason::Delivered.into()),
    }
}

/// Whether the packet starts a connection; if it counts as let in, it is remembered. `closed`: a
/// connection that it starts is refused.
#[inline(always)]
fn start(hook: &Hook, seen: &mut Seen, from_host: bool, closed: bool) -> Result<bool, Reason> {
    let header = &seen.header;
    if header.part == Part::Later {
        return Ok(false);
    }
    seen.transport = transport::read(&hook.packet, header)?;
    let transport = &seen.transport;
    let starts = match header.protocol {
        TCP => transport.opens,
        UDP => false,
        ICMP => !header.v6 && transport.kind == ECHO_REQUEST,
        ICMPV6 => header.v6 && transport.kind == ECHO_REQUEST_V6,
        _ => true,
    };
    let counts = match header.protocol {
        TCP => starts && !closed,
        UDP => from_host,
        ICMP | ICMPV6 => starts && from_host,
        _ => false,
    };
    if counts {
        remember(hook, header, transport);
    }
    Ok(starts)
}

/// Makes the entry that lets the sandbox answer.
#[inline(never)]
fn remember(hook: &Hook, header: &Header, transport: &Transport) {
    let ports = Ports {
        protocol: header.protocol,
        remote: transport.source_port,
        local: transport.destination_port,
    };
    let key = inbound::key(decide::owner(hook), header.source, header.destination, ports);
    if INBOUND.get_ptr(key).is_none() {
        // SAFETY: the helper reads a clock.
        let now = unsafe { bpf_ktime_get_ns() };
        // Without an entry the answers are judged like outbound packets.
        let _ = INBOUND.insert(key, now, 0);
    }
}
