//! The kernel programs, which judge packets between a sandbox and its host.
//!
//! Directions are from the sandbox's perspective. `from_sandbox` handles packets that the sandbox
//! sends (TC ingress of the host-side interface), `to_sandbox` those that it receives (TC egress).
//! Each interface has its own small gate (`gate.o`), which sets the sandbox's slot and calls the
//! programs here.
//!
//! ```text
//! gate ─► fast_path: simple, and allowed or silently denied by its address → count → pass or drop
//!           └► from_sandbox: judge (lines 1 to 9) → count → pass, or report and drop ─► reject
//!                └► proxy_redirect: assign a socket → count → pass, or report and drop ─► reject
//! gate ─► to_sandbox:   judge (store inbound connections) → count → pass, or report and drop
//! gate ─► early_drop:   judge → report and drop, or leave the packet to from_sandbox
//! ```
//!
//! Every packet leaves a program at a single point with a single reason. In doubt it is dropped.
#![no_std]
#![no_main]

mod anti_spoofing;
mod background_traffic;
mod checksum_offload;
mod constant_length;
mod datagram_exchanges;
mod disposition;
mod endpoint;
mod event_limits;
mod event_report;
mod extension_headers;
mod fast_delivery;
mod fast_path;
mod flow_table;
mod forwarding;
mod fragment;
mod from_sandbox;
mod guard_mark;
mod inbound_connections;
mod ip_header;
mod kernel_skb;
mod maps;
mod neighbor;
mod packet_context;
mod packet_counting;
mod packet_view;
mod parsed_headers;
mod policy_lookup;
mod proxy_redirect;
mod reject;
mod reported_flows;
mod simple_frame;
mod socket_lookup;
mod tcp_connections;
mod to_sandbox;
mod transport;

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::error;
use policy_common::bpf_names::tail_call_index;

use crate::{
    disposition::{DenyPacket, PacketResult},
    fast_path::SimpleVerdict,
    maps::TC_PROGRAMS,
    packet_context::PacketContext,
    parsed_headers::ParsedHeaders,
};

/// Judges a simple packet that the sandbox sends. `from_sandbox` judges the others.
#[classifier]
pub(crate) fn fast_path(ctx: TcContext) -> i32 {
    match fast_path::judge_simple_packet(&ctx) {
        Some(SimpleVerdict::Allow) => {
            guard_mark::set_guard_mark(&ctx);
            return TC_ACT_UNSPEC;
        }
        Some(SimpleVerdict::Drop) => return TC_ACT_SHOT,
        None => {}
    }
    // SAFETY: on success the call does not return, and nothing here needs dropping.
    unsafe { TC_PROGRAMS.tail_call(&ctx, tail_call_index::FROM_SANDBOX) };
    TC_ACT_SHOT
}

/// Judges a packet that the sandbox sends.
#[classifier]
pub(crate) fn from_sandbox(ctx: TcContext) -> i32 {
    let hook = PacketContext::from_tc(&ctx);
    let mut memory = MaybeUninit::uninit();
    let headers = ParsedHeaders::empty(&mut memory);
    let judgement = from_sandbox::judge_from_sandbox(&hook, headers)
        .and_then(|disposition| {
            checksum_offload::deny_misplaced_checksum(&ctx, headers, disposition)
        })
        .and_then(|disposition| proxy_redirect::allow_or_redirect(&ctx, disposition))
        .inspect(|_| guard_mark::set_guard_mark(&ctx));
    finish_packet(&ctx, &hook, headers, judgement)
}

/// Redirects a packet that `from_sandbox` judged to the egress proxy. A separate program, so that
/// other packets do not pay for it.
#[classifier]
pub(crate) fn proxy_redirect(ctx: TcContext) -> i32 {
    let mut hook = PacketContext::from_tc(&ctx);
    let mut memory = MaybeUninit::uninit();
    let headers = ParsedHeaders::empty(&mut memory);
    let judgement = proxy_redirect::redirect_packet(&ctx, &hook, headers);
    // Helpers that change the packet have invalidated the view.
    hook.packet_view = packet_context::current_packet_view(&ctx);
    finish_packet(&ctx, &hook, headers, judgement)
}

/// The single exit for packets that the sandbox sends.
#[inline(always)]
fn finish_packet(
    ctx: &TcContext,
    hook: &PacketContext,
    headers: &ParsedHeaders,
    judgement: PacketResult,
) -> i32 {
    match judgement {
        Ok(pass) => {
            packet_counting::count_packet(hook, pass.0);
            event_report::report_new_flow(hook, headers, pass.0);
            TC_ACT_UNSPEC // the next program at this hook, or pass
        }
        Err(DenyPacket(verdict)) => {
            packet_counting::count_packet(hook, verdict);
            event_report::write_event(hook, headers, verdict);
            if reject::take_reject_token(hook, headers, verdict) {
                // SAFETY: on success the call does not return, and nothing here needs dropping.
                unsafe { TC_PROGRAMS.tail_call(ctx, tail_call_index::REJECT) };
                log_missing_reject_program(ctx);
            }
            TC_ACT_SHOT
        }
    }
}

/// Logs that the tail call failed, which should never happen. The packet is dropped anyway.
#[inline(never)] // not `#[cold]`: the loader does not link the section of cold functions
fn log_missing_reject_program(ctx: &TcContext) {
    error!(ctx, "TC_PROGRAMS has no program that answers: denied packets vanish");
}

/// Replies to a denied packet. A separate program, because the kernel limits the stack of each to
/// 512 bytes.
#[classifier]
pub(crate) fn reject(ctx: TcContext) -> i32 {
    reject::send_reject(&ctx)
}

/// Delivers a simple packet that the sandbox receives. `to_sandbox` judges the others.
#[classifier]
pub(crate) fn fast_delivery(ctx: TcContext) -> i32 {
    if fast_delivery::deliver_simple_packet(&ctx).is_some() {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: on success the call does not return, and nothing here needs dropping.
    unsafe { TC_PROGRAMS.tail_call(&ctx, tail_call_index::TO_SANDBOX) };
    TC_ACT_SHOT
}

/// Judges a packet that the sandbox receives.
#[classifier]
pub(crate) fn to_sandbox(ctx: TcContext) -> i32 {
    let hook = PacketContext::from_tc(&ctx);
    let mut memory = MaybeUninit::uninit();
    let headers = ParsedHeaders::empty(&mut memory);
    match to_sandbox::judge_to_sandbox(&hook, headers, packet_context::is_from_host(&ctx)) {
        Ok(pass) => {
            packet_counting::count_packet(&hook, pass.0);
            TC_ACT_UNSPEC
        }
        Err(DenyPacket(verdict)) => {
            packet_counting::count_packet(&hook, verdict);
            event_report::write_event(&hook, headers, verdict);
            TC_ACT_SHOT
        }
    }
}

/// Drops packets that `from_sandbox` would drop silently, before the kernel allocates an `sk_buff`.
#[xdp]
pub(crate) fn early_drop(ctx: XdpContext) -> u32 {
    let hook = PacketContext::from_xdp(&ctx);
    let mut memory = MaybeUninit::uninit();
    let headers = ParsedHeaders::empty(&mut memory);
    match from_sandbox::judge_early_drop(&hook, headers) {
        Some(DenyPacket(verdict)) => {
            packet_counting::count_packet(&hook, verdict);
            event_report::write_event(&hook, headers, verdict);
            xdp_action::XDP_DROP
        }
        None => xdp_action::XDP_PASS,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this.
    loop {}
}
