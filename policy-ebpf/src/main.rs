//! The kernel side: what happens to a packet between a sandbox and its host.
//!
//! Directions are the sandbox's: `from_sandbox` runs where its packets arrive (TC ingress of the
//! host-side interface), `to_sandbox` where its packets leave (TC egress). Each interface carries
//! its own small gate (`gate.o`) that names the sandbox's slot and calls the programs here.
//!
//! ```text
//! gate ─► from_sandbox: decide (lines 1 to 9) → account → pass, or report and drop ─► reject
//!           └► hand_over: to the egress proxy → account → pass, or report and drop ─► reject
//! gate ─► to_sandbox:   admit (remember inbound connections) → account → pass, or report and drop
//! gate ─► early_drop:   decide → account → drop, or leave it to from_sandbox
//! ```
//!
//! Every packet leaves through one door with one reason, and doubt means drop.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "aya's macros do not hand the comments on")]

mod account;
mod admit;
mod checksum;
mod context;
mod decide;
mod fragment;
mod hand_over;
mod header;
mod inbound;
mod maps;
mod neighbor;
mod outcome;
mod packet;
mod policy;
mod reject;
mod report;
mod socket;
mod spoof;
mod table;
mod transport;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::error;
use policy_common::name::tail;

use crate::{
    context::{Hook, Seen},
    maps::TC_PROGRAMS,
    outcome::{Drop, Judgement},
};

/// Judges a packet that the sandbox sends.
#[classifier]
pub fn from_sandbox(ctx: TcContext) -> i32 {
    let (hook, mut seen) = (Hook::of_tc(&ctx), Seen::NOTHING);
    let judgement = decide::from_sandbox(&hook, &mut seen)
        .and_then(|way| checksum::confirm(&ctx, &seen, way))
        .and_then(|way| hand_over::or_pass(&ctx, way));
    act(&ctx, &hook, &seen, judgement)
}

/// Hands a packet that `from_sandbox` judged to the egress proxy. A program of its own, so that
/// others do not pay for it.
#[classifier]
pub fn hand_over(ctx: TcContext) -> i32 {
    let (hook, mut seen) = (Hook::of_tc(&ctx), Seen::NOTHING);
    let judgement = hand_over::carry_out(&ctx, &hook, &mut seen);
    act(&ctx, &hook, &seen, judgement)
}

/// The one door for what the sandbox sends.
#[inline(always)]
fn act(ctx: &TcContext, hook: &Hook, seen: &Seen, judgement: Judgement) -> i32 {
    match judgement {
        Ok(pass) => {
            account::count(hook, pass.0);
            report::flow(hook, seen, pass.0);
            TC_ACT_UNSPEC // the next program at this hook, or pass
        }
        Err(Drop(verdict)) => {
            account::count(hook, verdict);
            report::write(hook, seen, verdict);
            if reject::is_due(hook, seen, verdict) {
                // SAFETY: on success the call does not come back; nothing here needs dropping.
                unsafe { TC_PROGRAMS.tail_call(ctx, tail::REJECT) };
                report_unanswered(ctx);
            }
            TC_ACT_SHOT
        }
    }
}

/// What should never happen: the call came back. The packet is dropped all the same.
#[inline(never)] // not cold: its section would be one that the loader does not link
fn report_unanswered(ctx: &TcContext) {
    error!(ctx, "TC_PROGRAMS has no program that answers: denied packets vanish");
}

/// Turns a denied packet into its answer. A program of its own: the kernel allows each a stack of
/// 512 bytes.
#[classifier]
pub fn reject(ctx: TcContext) -> i32 {
    reject::answer(&ctx)
}

/// Sees a packet that the sandbox receives.
#[classifier]
pub fn to_sandbox(ctx: TcContext) -> i32 {
    let (hook, mut seen) = (Hook::of_tc(&ctx), Seen::NOTHING);
    match admit::to_sandbox(&hook, &mut seen, context::is_from_host(&ctx)) {
        Ok(pass) => {
            account::count(&hook, pass.0);
            TC_ACT_UNSPEC
        }
        Err(Drop(verdict)) => {
            account::count(&hook, verdict);
            report::write(&hook, &seen, verdict);
            TC_ACT_SHOT
        }
    }
}

/// Drops what `from_sandbox` would drop in silence, before the kernel builds a packet of it.
#[xdp]
pub fn early_drop(ctx: XdpContext) -> u32 {
    let (hook, mut seen) = (Hook::of_xdp(&ctx), Seen::NOTHING);
    match decide::early(&hook, &mut seen) {
        Some(Drop(verdict)) => {
            account::count(&hook, verdict);
            report::write(&hook, &seen, verdict);
            xdp_action::XDP_DROP
        }
        None => xdp_action::XDP_PASS,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can get here.
    loop {}
}
