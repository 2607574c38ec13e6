//! Policies that do not fit into the memory for tables are in the LPM tries, and judge alike.

use std::net::Ipv6Addr;

use policy_agent::{
    dataplane::{DenyAction, InboundSource, Slot},
    policy::CompiledPolicy,
};
use policy_common::{
    reason::Reason,
    verdict::{NO_RULE, Verdict},
};
use policy_integration::program_runner::ProgramRunner;
use policy_testbed::{
    packets::{IpDatagram, IpPayload, test_hosts::SANDBOX},
    wait::eventually,
};

/// The number of prefixes of a large policy. Ten of them do not fit into the memory for tables.
const PREFIXES: u32 = 100_000;
const LARGE_POLICIES: u32 = 10;

/// Allows every second address of a range with the rule of its index, and denies the others.
fn large_policy(rules_from: u32, prefixes: u32) -> CompiledPolicy {
    let verdict = |reason: Reason, rule_index| Verdict {
        reason_code: reason as u8,
        flags: 0,
        policy_id: 0,
        rule_index,
    };
    let denied = verdict(Reason::DenyOut, NO_RULE);
    let entry = |index: u32| {
        let net = ipnet::Ipv6Net::from(allowed_address(index));
        (net, verdict(Reason::AllowOut, rules_from + index))
    };
    let all = [(ipnet::Ipv6Net::default(), denied)];
    CompiledPolicy {
        ipv4_entries: vec![(ipnet::Ipv4Net::default(), denied)],
        ipv6_entries: all.into_iter().chain((0..prefixes).map(entry)).collect(),
    }
}

/// Addresses whose prefixes share few bits, so that each needs a node of its own.
fn allowed_address(index: u32) -> Ipv6Addr {
    Ipv6Addr::from((u128::from(index) + (0x2600 << 16)) << 80 | 1)
}

#[track_caller]
fn assert_reason(programs: &mut ProgramRunner, to: Ipv6Addr, expected: Reason) {
    let datagram = IpDatagram::new(SANDBOX.v6, to, IpPayload::udp(4000, 53, b"question"));
    let outcome = programs.from_sandbox(datagram.to_frame().bytes()).expect("the gate runs");
    assert_eq!(outcome.reason, Some(expected), "to {to}");
}

#[track_caller]
fn assert_large_policy_decides(programs: &mut ProgramRunner) {
    for index in [0, 1, PREFIXES / 2, PREFIXES - 1] {
        assert_reason(programs, allowed_address(index), Reason::AllowOut);
        let beside = Ipv6Addr::from(u128::from(allowed_address(index)) + 1);
        assert_reason(programs, beside, Reason::DenyOut);
    }
    assert_reason(programs, allowed_address(PREFIXES), Reason::DenyOut);
}

#[test]
fn what_does_not_fit_is_in_the_lpm_tries_until_there_is_room() {
    let mut programs = ProgramRunner::open(DenyAction::Drop, InboundSource::Any)
        .unwrap_or_else(|e| panic!("{e:#}"));
    programs.reset_sandbox(None, &[SANDBOX.v6.into()]).expect("a slot");
    programs.publish(&large_policy(0, PREFIXES)).expect("the first fits");
    assert_large_policy_decides(&mut programs);
    let one = programs.dataplane().table_bytes();
    if one < PREFIXES as usize {
        return; // Linux 5.10 has less memory for tables, into which not even one fits
    }
    let others: Vec<Slot> = (100..100 + LARGE_POLICIES).filter_map(Slot::new).collect();
    for (slot, rule) in others.iter().zip(1..) {
        programs.dataplane().publish(&[*slot], &large_policy(rule, PREFIXES)).expect("published");
    }
    let used = programs.dataplane().table_bytes();
    assert!(used < one * others.len(), "{used} bytes, and one takes {one}: all fit");
    let last = large_policy(LARGE_POLICIES + 1, PREFIXES);
    programs.publish(&last).expect("published in the tries");
    assert!(programs.dataplane().table_bytes() < used, "it fits");
    assert_large_policy_decides(&mut programs);
    for slot in &others {
        programs.dataplane().release_slot(*slot).expect("released");
    }
    // Room is free again once no program can read the old tables.
    let published = || {
        programs.publish(&large_policy(0, 10)).ok()?;
        programs.publish(&last).ok()?;
        (programs.dataplane().table_bytes() >= one).then_some(())
    };
    eventually("the policy is in the memory for tables", published).expect("there is room");
    assert_large_policy_decides(&mut programs);
}
