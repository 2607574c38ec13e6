//! The precedence of `docs/policy.md`: the first line that matches decides.
//!
//! 1. malformed, spoofed, or of a kind that no rule can judge → drop
//! 2. neighbour discovery about the sandbox's own addresses → pass; other → drop
//! 3. a reply to an inbound connection that was admitted → pass
//! 4. `platform_allow` → pass
//! 5. `platform_deny`, including embedded addresses → drop
//! 6. `allowOut`, DNS servers → pass
//! 7. TCP to 80 or 443 with domain rules → the egress proxy
//! 8. `denyOut` → drop
//! 9. → pass
//!
//! Lines 4 to 9 are one lookup. Line 3 is only checked if that lookup does not let the packet pass.
//! It could not change the outcome otherwise, and connections that a policy allows do not pay for
//! it.

use policy_common::{
    endpoint::ENDPOINT_REJECT_DENIED,
    reason::{self, Reason},
    verdict::{NO_RULE, VERDICT_REDIRECT_TCP, VERDICT_REDIRECT_WEB, Verdict},
};

use crate::{
    anti_spoofing,
    disposition::{
        self, AllowPacket, DenyPacket, IntoPacketResult as _, PacketDisposition, PacketResult,
        RedirectPacket,
    },
    endpoint, fragment, inbound_connections,
    ip_header::{
        self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FragmentPart, IPPROTO_ICMPV6,
        IPPROTO_TCP, IpHeader,
    },
    maps::SANDBOXES,
    neighbor,
    packet_context::PacketContext,
    parsed_headers::ParsedHeaders,
    policy_lookup,
    transport::{self, TransportHeader},
};

/// Judges a packet that a sandbox sends.
#[inline(always)]
pub(crate) fn judge_from_sandbox(
    hook: &PacketContext,
    headers: &mut ParsedHeaders,
) -> PacketResult<PacketDisposition> {
    let sandbox = endpoint::active_endpoint(hook)?;
    headers.ethertype = ip_header::read_ethertype(hook)?;
    if hook.has_tiny_segments {
        return Err(Reason::Malformed.into());
    }
    let mac = anti_spoofing::check_source_mac(hook, sandbox)?;
    match headers.ethertype {
        ETHERTYPE_IPV4 => ip_header::parse_ipv4(hook, &mut headers.ip_header)?,
        ETHERTYPE_IPV6 => ip_header::parse_ipv6(hook, &mut headers.ip_header)?,
        ETHERTYPE_ARP => {
            return neighbor::judge_arp(hook, sandbox, &mac)
                .into_packet_result()
                .map(PacketDisposition::Allow);
        }
        _ => return Err(Reason::UnknownEthertype.into()),
    }
    let header = &headers.ip_header;
    if header.is_v6
        && header.protocol == IPPROTO_ICMPV6
        && neighbor::is_discovery(&hook.packet_view, header)
    {
        return neighbor::judge_discovery(hook, header, sandbox, &mac)
            .into_packet_result()
            .map(PacketDisposition::Allow);
    }
    anti_spoofing::check_source_address(header, sandbox)?;
    match header.fragment_part {
        FragmentPart::WholeDatagram => judge_datagram(hook, headers),
        FragmentPart::FirstFragment => {
            let PacketDisposition::Allow(pass) = judge_datagram(hook, headers)? else {
                return Err(Reason::Fragment.into());
            };
            let remembered = fragment::remember_first_fragment(hook, &headers.ip_header, pass.0);
            if remembered {
                Ok(PacketDisposition::Allow(pass))
            } else {
                Err(Reason::Fragment.into())
            }
        }
        FragmentPart::LaterFragment => {
            let policy = policy_lookup::lookup_verdict(hook.slot, header)?.policy_id;
            disposition::result_of_reason_code(fragment::judge_later_fragment(hook, header, policy))
                .map(PacketDisposition::Allow)
        }
    }
}

/// Returns the drop that XDP can perform on its own. `from_sandbox` handles the rest: denials that
/// get a reply, fragments (the first may still be in the TC path), and discovery, which needs a
/// route lookup. Packets for the egress proxy need a socket, which only TC can assign.
#[inline(always)]
pub(crate) fn judge_early_drop(
    hook: &PacketContext,
    headers: &mut ParsedHeaders,
) -> Option<DenyPacket> {
    let sandbox = SANDBOXES.get(hook.slot)?;
    let Err(DenyPacket(verdict)) = judge_from_sandbox(hook, headers) else { return None };
    let reason = Reason::from_code(verdict.reason_code)?;
    let answered = sandbox.flags & ENDPOINT_REJECT_DENIED != 0 && reason.is_rejectable();
    if answered || matches!(reason, Reason::Fragment | Reason::NeighborSpoof) {
        return None;
    }
    Some(DenyPacket(verdict))
}

/// Judges a packet by lines 3 to 9, once its transport header is parsed.
#[inline(always)]
fn judge_datagram(
    hook: &PacketContext,
    headers: &mut ParsedHeaders,
) -> PacketResult<PacketDisposition> {
    headers.transport_header = transport::parse_transport(&hook.packet_view, &headers.ip_header)?;
    let (header, transport) = (&headers.ip_header, &headers.transport_header);
    if inbound_connections::is_foreign_error(hook, header, transport) {
        return Err(Reason::ForeignError.into());
    }
    let verdict = policy_lookup::lookup_verdict(hook.slot, header)?;
    let disposition = disposition_by_destination(hook, verdict, header, transport);
    // Of an observed sandbox, what would be denied may be a reply just the same.
    let is_settled = verdict.reason_code != Reason::WouldDeny as u8
        && matches!(disposition, Ok(PacketDisposition::Allow(_)));
    if !is_settled && inbound_connections::is_reply(hook, header, transport) {
        return Ok(PacketDisposition::Allow(AllowPacket(Verdict {
            reason_code: Reason::Reply as u8,
            rule_index: NO_RULE,
            ..verdict
        })));
    }
    match disposition {
        Ok(PacketDisposition::Allow(pass)) => {
            inbound_connections::follow_allowed_segment(hook, header, transport);
            Ok(PacketDisposition::Allow(pass))
        }
        // Reassembly, which connection tracking applies even to atomic fragments, would lose the
        // proxy's socket.
        Ok(PacketDisposition::Redirect(_)) if header.is_atomic_fragment => {
            Err(Reason::Fragment.into())
        }
        otherwise => otherwise,
    }
}

/// Judges a packet by lines 4 to 9, given the policy's verdict about the destination. The tunnel
/// carries TCP that these lines allow. ICMP errors about a connection of the proxy have its server's
/// address as their destination; whether there is such a connection is for the proxy's program to
/// find out.
#[inline(always)]
fn disposition_by_destination(
    hook: &PacketContext,
    verdict: Verdict,
    header: &IpHeader,
    transport: &TransportHeader,
) -> PacketResult<PacketDisposition> {
    let passes = reason::code_passes(verdict.reason_code);
    if verdict.flags != 0 && header.protocol == IPPROTO_TCP {
        let web = matches!(transport.destination_port, 80 | 443);
        if verdict.flags & VERDICT_REDIRECT_WEB != 0 && web {
            let reason = Reason::ByName as u8;
            return Ok(PacketDisposition::Redirect(RedirectPacket(Verdict {
                reason_code: reason,
                rule_index: NO_RULE,
                ..verdict
            })));
        }
        if verdict.flags & VERDICT_REDIRECT_TCP != 0 && passes {
            return Ok(PacketDisposition::Redirect(RedirectPacket(verdict)));
        }
    } else if verdict.flags != 0 && inbound_connections::quotes_tcp_segment(hook, header, transport)
    {
        return Ok(PacketDisposition::Redirect(RedirectPacket(verdict)));
    }
    if passes {
        Ok(PacketDisposition::Allow(AllowPacket(verdict)))
    } else {
        Err(DenyPacket(verdict))
    }
}
