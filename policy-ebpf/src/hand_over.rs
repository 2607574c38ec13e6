//! Hands a segment to the egress proxy: the program that `from_sandbox` calls for what the proxy has
//! to judge by name (line 7) or to carry through a tunnel.
//!
//! The segment is assigned to the proxy's socket and marked; the routing rule for the mark delivers
//! it to the host itself. Only that may happen to it: a frame that is not for the host's own MAC
//! address could cross a bridge, and is refused. The host's stack does not forward a packet that has
//! a socket, so without the rule it goes nowhere.
//!
//! Whose socket it meets is for this program to say, and not for the host's other sockets: the
//! destination may be one that a service of the host listens at.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_RECOMPUTE_CSUM,
    helpers::{bpf_l4_csum_replace, bpf_sk_assign},
    programs::TcContext,
};
use policy_common::{
    hand_over::{MARK, SOCKET_MARK, door},
    name::tail,
    policy::Verdict,
    reason::Reason,
};

use crate::{
    context::{Hook, Seen, skb, view},
    header::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Header, Part, TCP, is_mapped},
    maps::TC_PROGRAMS,
    outcome::{Drop, HandOver, Judgement, Pass, Way},
    socket::{CLOSE, LISTEN, NEW_SYN_RECV, Socket, TIME_WAIT, Tuple},
    transport,
};

/// `PACKET_HOST` of linux/if_packet.h: to the interface's own MAC address.
const TO_HOST: u32 = 0;
/// Where TCP has its flags, and the word that they are in, and its checksum.
const WORD: usize = 12;
const CHECKSUM: usize = 16;
const ACK: u16 = 0x10;

/// A packet that may pass, or one that was for the proxy and could not be given to the program here.
#[inline(always)]
pub fn or_pass(ctx: &TcContext, way: Way) -> Judgement {
    match way {
        Way::On(pass) => Ok(pass),
        Way::Proxy(HandOver(verdict)) => {
            note(ctx, verdict);
            // SAFETY: on success the call does not come back; nothing here needs dropping.
            unsafe { TC_PROGRAMS.tail_call(ctx, tail::HAND_OVER) };
            Err(Drop::without_proxy(verdict))
        }
    }
}

/// Leaves the verdict for the program that is called next, in `__sk_buff::cb` behind the slot.
#[inline(always)]
fn note(ctx: &TcContext, verdict: Verdict) {
    let first = u32::from(verdict.reason) | u32::from(verdict.policy) << 16;
    // SAFETY: the context is valid while the program runs; TC programs may write `cb`.
    unsafe {
        (*skb(ctx)).cb[1] = first;
        (*skb(ctx)).cb[2] = verdict.rule;
    }
}

/// The verdict that was left. It is taken away: where sockets are looked up, older kernels (5.10) take
/// these bytes for what IPv6 notes about a packet, and find none that is not bound to an interface.
#[inline(always)]
fn noted(ctx: &TcContext) -> Verdict {
    // SAFETY: the context is valid while the program runs; TC programs may write `cb`.
    let (first, rule) = unsafe {
        let cb = &raw mut (*skb(ctx)).cb;
        let noted = ((*cb)[1], (*cb)[2]);
        ((*cb)[1], (*cb)[2]) = (0, 0);
        noted
    };
    let [reason, _, a, b] = first.to_le_bytes();
    Verdict { reason, flags: 0, policy: u16::from_le_bytes([a, b]), rule }
}

/// Hands the packet over.
#[inline(always)]
pub fn carry_out(ctx: &TcContext, hook: &Hook, seen: &mut Seen) -> Judgement {
    let verdict = noted(ctx);
    match read(hook, seen).is_ok_and(|()| assign(ctx, hook, seen).is_some()) {
        true => Ok(Pass(verdict)),
        false => Err(Drop::without_proxy(verdict)),
    }
}

/// The headers once more: they do not fit where the verdict was left.
#[inline(always)]
fn read(hook: &Hook, seen: &mut Seen) -> Result<(), Reason> {
    seen.ethertype = header::ethertype(hook)?;
    match seen.ethertype {
        ETHERTYPE_IPV4 => header::ipv4(hook, &mut seen.header)?,
        ETHERTYPE_IPV6 => header::ipv6(hook, &mut seen.header)?,
        _ => return Err(Reason::UnknownEthertype),
    }
    seen.transport = transport::read(&hook.packet, &seen.header)?;
    Ok(())
}

#[inline(always)]
fn assign(ctx: &TcContext, hook: &Hook, seen: &Seen) -> Option<()> {
    // SAFETY: the context is valid while the program runs.
    let to_host = unsafe { (*skb(ctx)).pkt_type } == TO_HOST;
    if !to_host || !is_deliverable(&seen.header) {
        return None;
    }
    let socket = receiver(ctx, hook, seen)?;
    // SAFETY: the context and the socket are valid; the helper takes a reference of its own.
    let result = unsafe { bpf_sk_assign(ctx.as_ptr(), socket.as_ptr().cast(), 0) };
    if result != 0 {
        return None;
    }
    // SAFETY: TC programs may write the mark.
    unsafe { (*skb(ctx)).mark = MARK };
    Some(())
}

/// Whether the host's stack comes to the TCP header of the very packet. IPv6 knows no mapped
/// addresses on the wire.
#[inline(always)]
fn is_deliverable(header: &Header) -> bool {
    let whole = header.part == Part::Whole && !header.atomic;
    header.protocol == TCP && whole && !(header.v6 && is_mapped(header.destination))
}

/// The socket that is to have the segment: that of its connection, else the sandbox's listener.
///
/// The listener gets segments that open nothing, too: with SYN cookies an unknown one may be the
/// third of a handshake.
#[inline(always)]
fn receiver(ctx: &TcContext, hook: &Hook, seen: &Seen) -> Option<Socket> {
    let tuple = Tuple::of(&seen.header, &seen.transport);
    let Some(found) = tuple.socket(ctx) else { return listener(hook, seen) };
    match found.state() {
        LISTEN => listener(hook, seen),
        TIME_WAIT => {
            if seen.transport.opens {
                challenge(ctx, &seen.header)?;
            }
            Some(found)
        }
        NEW_SYN_RECV => {
            // The request says nothing of itself, but the listener that it waits at does.
            let listener_of_it = tuple.full_socket(ctx)?;
            let full = listener_of_it.full()?;
            match full.mark() {
                SOCKET_MARK if full.state() == CLOSE => listener(hook, seen),
                SOCKET_MARK => Some(found),
                _ => None,
            }
        }
        // A connection with a service of the host, from before these rules, ends here.
        _ => (found.full()?.mark() == SOCKET_MARK).then_some(found),
    }
}

/// The listener of the sandbox, for this family.
#[inline(always)]
fn listener(hook: &Hook, seen: &Seen) -> Option<Socket> {
    Socket::in_doors(door(hook.slot, seen.header.v6))
}

/// Makes a challenge of a segment that opens a connection, for a socket in TIME_WAIT.
///
/// A client may use its port again at once. To such a segment the kernel would look for a listener
/// at the destination itself, and might find a service of the host. Instead the segment says that
/// it acknowledges, too, and so gets the last acknowledgement once more. To this the client answers
/// with a reset, which ends the old connection, and opens the new one again at once (RFC 9293,
/// 3.5.2, case "old duplicate").
#[inline(always)]
fn challenge(ctx: &TcContext, header: &Header) -> Option<()> {
    let before = *view(ctx).read::<[u8; 2]>(header.transport + WORD)?;
    let after = (u16::from_be_bytes(before) | ACK).to_be_bytes();
    let [from, to] = [before, after].map(|word| u64::from(u16::from_ne_bytes(word)));
    #[expect(clippy::cast_possible_truncation, reason = "headers lie in the first 2 KiB")]
    let checksum = (header.transport + CHECKSUM) as u32;
    // SAFETY: the context is valid while the program runs; the helper checks the offset.
    if unsafe { bpf_l4_csum_replace(skb(ctx), checksum, from, to, 2) } != 0 {
        return None;
    }
    ctx.store(header.transport + WORD, &after, BPF_F_RECOMPUTE_CSUM.into()).ok()
}
