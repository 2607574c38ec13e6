//! The precedence of `docs/policy.md`: the first line that matches decides.
//!
//! 1. malformed, spoofed, or of a kind that no rule can judge → drop
//! 2. neighbour discovery about the sandbox's own addresses → pass; other → drop
//! 3. a reply to an inbound connection that was let in → pass
//! 4. `platform_allow` → pass
//! 5. `platform_deny`, embedded addresses too → drop
//! 6. `allowOut`, DNS servers → pass
//! 7. TCP to 80 or 443 with domain rules → the egress proxy
//! 8. `denyOut` → drop
//! 9. → pass
//!
//! Lines 4 to 9 are one lookup. Line 3 is only asked when that lookup does not let the packet
//! pass: it could say nothing else then, and the connections that a policy allows do not pay for
//! it.

use policy_common::{
    policy::{NAMES, NO_RULE, TUNNEL, Verdict},
    reason::{self, Reason},
    sandbox::{ACTIVE, REJECT, Sandbox},
};

use crate::{
    context::{Hook, Seen},
    fragment,
    header::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Header, ICMPV6, Part, TCP},
    inbound,
    maps::SANDBOXES,
    neighbor,
    outcome::{self, Drop, HandOver, Judge as _, Judgement, Pass, Way},
    policy, spoof,
    transport::{self, Transport},
};

/// Judges a packet that a sandbox sends.
#[inline(always)]
pub fn from_sandbox(hook: &Hook, seen: &mut Seen) -> Judgement<Way> {
    let sandbox = sandbox(hook)?;
    seen.ethertype = header::ethertype(hook)?;
    let mac = spoof::mac(hook, sandbox)?;
    match seen.ethertype {
        ETHERTYPE_IPV4 => header::ipv4(hook, &mut seen.header)?,
        ETHERTYPE_IPV6 => header::ipv6(hook, &mut seen.header)?,
        ETHERTYPE_ARP => return neighbor::arp(hook, sandbox, &mac).judge().map(Way::On),
        _ => return Err(Reason::UnknownEthertype.into()),
    }
    let header = &seen.header;
    if header.v6 && header.protocol == ICMPV6 && neighbor::is_discovery(&hook.packet, header) {
        return neighbor::discovery(hook, header, sandbox, &mac).judge().map(Way::On);
    }
    spoof::address(header, sandbox)?;
    match header.part {
        Part::Whole => datagram(hook, seen),
        Part::First => {
            let Way::On(pass) = datagram(hook, seen)? else { return Err(Reason::Fragment.into()) };
            let remembered = fragment::first(hook, &seen.header, pass.0);
            if remembered { Ok(Way::On(pass)) } else { Err(Reason::Fragment.into()) }
        }
        Part::Later => {
            let policy = policy::lookup(hook.slot, header)?.policy;
            outcome::of_code(fragment::later(hook, header, policy)).map(Way::On)
        }
    }
}

/// The drop that XDP can carry out on its own. Left to `from_sandbox` are what would be answered;
/// fragments, whose first may still be on its way through TC; and discovery, which asks for routes.
/// What is for the egress proxy has to meet a socket, which only TC can have it do.
#[inline(always)]
pub fn early(hook: &Hook, seen: &mut Seen) -> Option<Drop> {
    let sandbox = SANDBOXES.get(hook.slot)?;
    let Err(Drop(verdict)) = from_sandbox(hook, seen) else { return None };
    let reason = Reason::from_code(verdict.reason)?;
    let answered = sandbox.flags & REJECT != 0 && reason.rejects();
    if answered || matches!(reason, Reason::Fragment | Reason::NeighborSpoof) {
        return None;
    }
    Some(Drop(verdict))
}

/// The sandbox that this interface belongs to.
#[inline(always)]
pub fn sandbox(hook: &Hook) -> Result<&'static Sandbox, Reason> {
    match SANDBOXES.get(hook.slot) {
        Some(sandbox) if sandbox.flags & ACTIVE != 0 => Ok(sandbox),
        _ => Err(Reason::NoPolicy),
    }
}

/// Names the sandbox in what is remembered between packets.
#[inline(always)]
pub fn owner(hook: &Hook) -> u32 {
    SANDBOXES.get(hook.slot).map_or(0, |sandbox| sandbox.owner)
}

/// Lines 3 to 9 for a packet whose transport header is there.
#[inline(always)]
fn datagram(hook: &Hook, seen: &mut Seen) -> Judgement<Way> {
    seen.transport = transport::read(&hook.packet, &seen.header)?;
    let (header, transport) = (&seen.header, &seen.transport);
    if inbound::is_foreign_error(hook, header, transport) {
        return Err(Reason::ForeignError.into());
    }
    let verdict = policy::lookup(hook.slot, header)?;
    match by_destination(verdict, header, transport) {
        Ok(Way::On(pass)) => Ok(Way::On(pass)),
        _ if inbound::is_reply(hook, header, transport) => {
            Ok(Way::On(Pass(Verdict { reason: Reason::Reply as u8, rule: NO_RULE, ..verdict })))
        }
        // Reassembly would lose the proxy's socket; connection tracking puts even this together.
        Ok(Way::Proxy(_)) if header.atomic => Err(Reason::Fragment.into()),
        otherwise => otherwise,
    }
}

/// Lines 4 to 9, from what the policy says about the destination. A tunnel carries TCP that they let
/// out.
#[inline(always)]
fn by_destination(verdict: Verdict, header: &Header, transport: &Transport) -> Judgement<Way> {
    let passes = reason::passes(verdict.reason);
    if verdict.flags != 0 && header.protocol == TCP {
        let web = matches!(transport.destination_port, 80 | 443);
        if verdict.flags & NAMES != 0 && web {
            let reason = Reason::ByName as u8;
            return Ok(Way::Proxy(HandOver(Verdict { reason, rule: NO_RULE, ..verdict })));
        }
        if verdict.flags & TUNNEL != 0 && passes {
            return Ok(Way::Proxy(HandOver(verdict)));
        }
    }
    if passes { Ok(Way::On(Pass(verdict))) } else { Err(Drop(verdict)) }
}
