//! What one sandbox does to the maps that all share takes nothing away from another.

use std::ops::RangeInclusive;

use aya::maps::{ArrayOfMaps, Map, MapData, MapError, PerCpuArray};
use policy_common::{
    ABI_VERSION,
    bpf_names::{COUNTERS, FLOWS, FRAGMENTS},
    counters::{COUNTER_GROUPS, ReasonCounters},
    reason::Reason::{AllowOut, DenyOut},
};
use policy_integration::program_runner::{FrameAction, LoadedGates};
use policy_testbed::packets::{
    IpPayload,
    test_hosts::{SANDBOX, SERVER},
};

use super::datapath_case::{
    DENY_ALL, DatapathCase, datagram_from_sandbox, sends, udp_from_sandbox,
};

const ALLOW_ALL: &str = r#"{"allowOut": ["0.0.0.0/0"]}"#;
/// More than a sandbox may have of either.
const FLOOD: RangeInclusive<u32> = 1..=20_000;

/// A second sandbox with the same address, and the policy of the first.
fn open_hostile_sandbox(case: &DatapathCase) -> LoadedGates {
    case.programs.open_second_sandbox(&[SANDBOX.v4.into()]).expect("another sandbox")
}

#[test]
fn fragments_of_one_sandbox_displace_none_of_another() {
    let mut case = DatapathCase::with_network(ALLOW_ALL);
    let large = |identification| {
        datagram_from_sandbox(SERVER.v4, IpPayload::udp(40_000, 4000, &[0x82; 64]))
            .with_identification(identification)
    };
    let other = open_hostile_sandbox(&case);
    case.publish_in_both(ALLOW_ALL);
    case.assert_steps(&[sends("the first", large(7).first_fragment(32), AllowOut)]);
    for identification in FLOOD {
        let frame = large(identification).first_fragment(32).to_frame();
        let action = other.pass_from_sandbox(frame.bytes()).expect("the gate runs");
        assert_eq!(action, FrameAction::Pass, "identification {identification}");
    }
    case.assert_steps(&[sends("the last", large(7).last_fragment(32), AllowOut)]);
    let kept = case.programs.count_flows(FRAGMENTS).expect("fragments");
    assert!(kept > 200 && kept <= 1 + 8 * 56, "{kept} datagrams are kept");
}

#[test]
fn flows_of_one_sandbox_are_not_reported_again_because_of_another() {
    let mut case = DatapathCase::with_network(ALLOW_ALL);
    let other = open_hostile_sandbox(&case);
    case.publish_in_both(ALLOW_ALL);
    case.programs.set_flow_reporting(true).expect("flows are reported");
    let frame = udp_from_sandbox(SERVER.v4).to_frame();
    let first = case.programs.from_sandbox(frame.bytes()).expect("the gate runs");
    assert!(first.event.is_some(), "a new flow is reported");
    for flow in FLOOD {
        let [_, _, high, low] = flow.to_be_bytes();
        let flood = udp_from_sandbox([203, 0, high, low]).to_frame();
        other.pass_from_sandbox(flood.bytes()).expect("the gate runs");
    }
    // Reads the events of the flood.
    case.programs.early_drop_in_xdp(frame.bytes()).expect("the gate runs");
    let again = case.programs.from_sandbox(frame.bytes()).expect("the gate runs");
    assert_eq!(again.event, None, "the flow was reported before");
    let kept = case.programs.count_flows(FLOWS).expect("flows");
    assert!(kept > 500 && kept <= 1 + 16 * 56, "{kept} flows are kept");
}

/// The flood of one sandbox is limited by its own bucket. Here many sandboxes spend theirs, one after
/// the other, while nobody reads the ring.
#[test]
fn a_flood_of_denials_leaves_room_for_the_events_of_others() {
    const SANDBOXES: u32 = 500;
    const DENIALS: u32 = 450;
    let mut case = DatapathCase::with_network(DENY_ALL);
    let frame = udp_from_sandbox(SERVER.v4).to_frame();
    let mut lost = 0;
    let other = open_hostile_sandbox(&case);
    for _ in 0..SANDBOXES {
        case.programs.reset_second_sandbox(&[SANDBOX.v4.into()]).expect("a new sandbox");
        other.repeat_from_sandbox(frame.bytes(), DENIALS).expect("the gate runs");
        lost += case.programs.second_rate_limits().expect("limits").events_lost;
    }
    assert!(lost > 0, "the ring was never in need");
    let mine = datagram_from_sandbox(SERVER.v4, IpPayload::udp(40_000, 4001, b"")).to_frame();
    let outcome = case.programs.from_sandbox(mine.bytes()).expect("the gate runs");
    assert_eq!(outcome.reason, Some(DenyOut));
    let event = outcome.event.expect("an event of the quiet sandbox");
    assert_eq!(event.destination_port, 4001);
}

#[test]
fn counters_take_memory_for_groups_with_sandboxes_only() {
    let case = DatapathCase::with_network(DENY_ALL);
    let pin = case.programs.pins().join(format!("v{ABI_VERSION}/maps/{COUNTERS}"));
    let map = Map::from_map_data(MapData::from_pin(pin).expect("a pin")).expect("a map");
    let groups: ArrayOfMaps<MapData, PerCpuArray<MapData, ReasonCounters>> =
        map.try_into().expect("an array of maps");
    let there: Vec<u32> = (0..COUNTER_GROUPS)
        .filter(|group| !matches!(groups.get(group, 0), Err(MapError::KeyNotFound)))
        .collect();
    assert_eq!(there, [0]);
}
