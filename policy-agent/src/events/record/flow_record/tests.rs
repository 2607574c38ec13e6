use std::net::SocketAddr;

use jiff::SignedDuration;
use policy_common::reason::Reason;

use super::*;

fn sandbox_id(id: &str) -> SandboxId {
    id.parse().expect(id)
}

/// A verdict of the egress proxy.
fn proxied(id: &str, reason: Reason, to: &str, name: &str) -> PolicyEvent {
    let source: SocketAddr = "10.11.0.2:40000".parse().expect("an address");
    let (to, name) = (to.parse().expect(to), (!name.is_empty()).then(|| name.to_owned()));
    PolicyEvent::from_connection(sandbox_id(id), source, to, name, reason, None)
}

/// A denied packet.
fn denied_packet(id: &str, to: &str) -> PolicyEvent {
    PolicyEvent { length: Some(74), ..proxied(id, Reason::DenyOut, to, "") }
}

fn denials(record: &FlowRecord) -> Vec<RecordedFlow> {
    let query = FlowQuery { selection: FlowSelection::Denials, ..FlowQuery::everything() };
    record.entries(&query)
}

#[test]
fn equal_destinations_are_one_entry() {
    let record = FlowRecord::default();
    for _ in 0..3 {
        record.observe(&denied_packet("web", "198.51.100.7:53"));
    }
    record.observe(&denied_packet("web", "198.51.100.7:54"));
    record.observe(&denied_packet("other", "198.51.100.7:53"));
    let entries = record.entries(&FlowQuery::everything());
    assert_eq!(entries.len(), 3);
    let first = entries.iter().find(|entry| entry.packets == 3).expect("the counted entry");
    assert_eq!((first.port, first.bytes, first.connections), (Some(53), 222, 0));
    assert_eq!(first.address, "198.51.100.7".parse().ok());
    assert!(first.first_seen <= first.last_seen);
}

#[test]
fn a_name_is_one_destination_wherever_the_sandbox_thinks_it_leads() {
    let record = FlowRecord::default();
    for (to, name) in [
        ("198.51.100.7:443", "Registry.example.com"),
        ("198.51.100.8:443", "registry.example.com"),
        ("198.51.100.8:80", "registry.example.com"),
        ("198.51.100.9:80", "198.51.100.9"),
        ("198.51.100.9:80", ""),
    ] {
        record.observe(&proxied("web", Reason::NameNotAllowed, to, name));
    }
    let entries = denials(&record);
    assert_eq!(entries.len(), 3);
    let named = entries.iter().find(|entry| entry.port == Some(443)).expect("the name");
    assert_eq!((named.connections, named.name.as_deref()), (2, Some("registry.example.com")));
    assert_eq!(named.address, "198.51.100.8".parse().ok());
    let unnamed = entries.iter().find(|entry| entry.name.is_none()).expect("the address");
    assert_eq!(unnamed.connections, 2);
}

#[test]
fn the_proxys_verdict_counts_and_not_the_kernels_redirect() {
    let record = FlowRecord::default();
    record.observe(&proxied("web", Reason::ByName, "198.51.100.7:443", ""));
    record.observe(&proxied("web", Reason::AllowName, "198.51.100.7:443", "a.example"));
    let entries = record.entries(&FlowQuery::everything());
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].decision, FlowDecision::Allowed);
    assert!(denials(&record).is_empty());
}

#[test]
fn a_query_selects_by_sandbox_reason_time_and_name() {
    let record = FlowRecord::default();
    record.observe(&denied_packet("web", "198.51.100.7:53"));
    record.observe(&proxied("web", Reason::NameNotAllowed, "198.51.100.7:443", "a.b.example"));
    record.observe(&denied_packet("other", "198.51.100.7:53"));
    let count = |query: FlowQuery| record.entries(&query).len();
    let every = FlowQuery::everything;
    assert_eq!(count(every()), 3);
    assert_eq!(count(FlowQuery { sandbox: Some(sandbox_id("web")), ..every() }), 2);
    assert_eq!(count(FlowQuery { sandbox: Some(sandbox_id("none")), ..every() }), 0);
    assert_eq!(count(FlowQuery { reason: Some("deny_out"), ..every() }), 2);
    assert_eq!(count(FlowQuery { name: DomainPattern::parse("*.b.example").ok(), ..every() }), 1);
    assert_eq!(count(FlowQuery { name: DomainPattern::parse("b.example").ok(), ..every() }), 0);
    let later = Timestamp::now() + SignedDuration::from_hours(1);
    assert_eq!(count(FlowQuery { since: Some(later), ..every() }), 0);
    assert_eq!(count(FlowQuery { last: Some(1), ..every() }), 1);
    assert_eq!(count(FlowQuery { changed_after: record.latest_change(), ..every() }), 0);
}

#[test]
fn a_scan_displaces_neither_what_recurs_nor_what_passes() {
    let record = FlowRecord::default();
    record.observe(&proxied("web", Reason::AllowName, "198.51.100.7:443", "a.example"));
    for _ in 0..100 {
        record.observe(&proxied("web", Reason::NameNotAllowed, "198.51.100.7:443", "b.example"));
    }
    for port in 1..=2_000 {
        record.observe(&denied_packet("web", &format!("203.0.113.5:{port}")));
        if port % 100 == 0 {
            let event = proxied("web", Reason::NameNotAllowed, "198.51.100.7:443", "b.example");
            record.observe(&event);
        }
    }
    let entries = record.entries(&FlowQuery::everything());
    assert!(entries.len() <= 2 * MAX_FLOWS_PER_TABLE + 4, "{}", entries.len());
    let counted = |name: &str| {
        let named = entries.iter().find(|entry| entry.name.as_deref() == Some(name));
        named.expect(name).connections
    };
    assert_eq!((counted("a.example"), counted("b.example")), (1, 120));
    let merged: Vec<_> = entries.iter().filter(|entry| entry.merged > 0).collect();
    assert_eq!(merged.len(), 1, "one entry for all displaced denials by deny_out");
    let packets: u64 = entries.iter().map(|entry| entry.packets).sum();
    assert_eq!(packets, 2_000, "no packet is lost");
}

#[test]
fn the_total_is_bounded_and_every_sandbox_has_its_share() {
    let record = FlowRecord::default();
    let sandboxes = 2 * MAX_FLOWS / MAX_FLOWS_PER_TABLE;
    for number in 0..sandboxes {
        let id = format!("s{number}");
        for port in 1..=MAX_FLOWS_PER_TABLE + 8 {
            record.observe(&denied_packet(&id, &format!("203.0.113.5:{port}")));
        }
    }
    let total = record.total.load(Ordering::Relaxed);
    assert!(total <= MAX_FLOWS + sandboxes * RESERVED_FLOWS_PER_TABLE, "{total}");
    let last = sandbox_id(&format!("s{}", sandboxes - 1));
    let of_last = record.entries(&FlowQuery { sandbox: Some(last), ..FlowQuery::everything() });
    assert_eq!(of_last.len(), RESERVED_FLOWS_PER_TABLE + 1, "its own, and one for the others");
}

#[test]
fn old_entries_are_dropped_and_those_of_ended_sandboxes_sooner() {
    let record = FlowRecord::default();
    let hours_ago = |hours| Timestamp::now() - SignedDuration::from_hours(hours);
    for (id, age) in [("running", 2), ("ended", 2), ("old", 30)] {
        let event = PolicyEvent { time: hours_ago(age), ..denied_packet(id, "203.0.113.5:1") };
        record.observe(&event);
    }
    record.prune(hours_ago(24), hours_ago(1), |id| id.as_str() != "ended");
    let entries = record.entries(&FlowQuery::everything());
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].sandbox_id.as_str(), "running");
    assert_eq!(record.total.load(Ordering::Relaxed), 1);
    assert!(!record.has_sandbox("ended") && record.has_sandbox("running"));
}
