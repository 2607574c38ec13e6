use policy_common::reason::Reason;

use super::*;
use crate::{events::PolicyEvent, policy::RuleRef};

fn denial(port: u16) -> PolicyEvent {
    let (source, to) = (([10, 11, 0, 2], 40_000).into(), ([203, 0, 113, 5], port).into());
    let sandbox = "web".parse().expect("an ID");
    let (name, rule) = (Some("a.example".to_owned()), None::<RuleRef>);
    PolicyEvent::from_connection(sandbox, source, to, name, Reason::NameNotAllowed, rule)
}

fn everything(record: &FlowRecord) -> Vec<RecordedFlow> {
    record.entries(&FlowQuery::everything())
}

#[test]
fn what_is_written_is_read_by_the_next_agent() {
    let state = tempfile::tempdir().expect("a directory");
    let record = FlowRecord::default();
    record.observe(&denial(80));
    let mut file = RecordFile::new(state.path());
    file.append(&everything(&record), &record).expect("written");
    for port in [80, 443] {
        record.observe(&denial(port));
        file.append(&everything(&record), &record).expect("written");
    }
    let next = FlowRecord::default();
    let file = RecordFile::new(state.path());
    assert_eq!(file.load_into(&next).expect("reads"), 0);
    assert_eq!(everything(&next), everything(&record));
}

#[test]
fn a_rule_survives_as_it_was() {
    let line = br#"{"sandboxID":"web","firstSeen":"2026-11-29T08:00:00Z","lastSeen":"2026-11-29T08:00:01Z",
        "decision":"denied","reason":"deny_out","rule":{"list":"network.denyOut","index":3,"entry":"203.0.113.0/24"},
        "protocol":"udp","address":"203.0.113.5","port":53,"packets":2,"bytes":120}"#;
    let entry: RecordedFlow = serde_json::from_slice(line).expect("an entry");
    assert_eq!((entry.reason, entry.packets, entry.connections), ("deny_out", 2, 0));
    let again = serde_json::to_vec(&entry).expect("JSON");
    assert_eq!(serde_json::from_slice::<RecordedFlow>(&again).expect("an entry"), entry);
    let unknown = String::from_utf8_lossy(line).replace("deny_out", "no_such_reason");
    assert!(serde_json::from_str::<RecordedFlow>(&unknown).is_err());
}

#[test]
fn a_line_that_a_crash_cut_off_is_skipped() {
    let state = tempfile::tempdir().expect("a directory");
    let record = FlowRecord::default();
    record.observe(&denial(80));
    let mut file = RecordFile::new(state.path());
    file.append(&everything(&record), &record).expect("written");
    let path = record_directory(state.path()).join(file_name(1));
    let mut damaged = OpenOptions::new().append(true).open(path).expect("opens");
    damaged.write_all(b"{\"sandboxID\":\"web\",\"fir").expect("written");
    let next = FlowRecord::default();
    let file = RecordFile::new(state.path());
    assert_eq!(file.load_into(&next).expect("reads"), 1);
    assert_eq!(everything(&next), everything(&record));
}

#[test]
fn a_large_file_is_followed_by_another_and_few_are_kept() {
    let state = tempfile::tempdir().expect("a directory");
    let record = FlowRecord::default();
    record.observe(&denial(80));
    let mut file = RecordFile::new(state.path());
    for _ in 0..MAX_FILES + 3 {
        file.append(&everything(&record), &record).expect("written");
        file.appended = MAX_APPENDED_BYTES;
    }
    let files = numbered_files(&file.directory).expect("listed");
    let numbers: Vec<_> = files.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [4, 5, 6, 7]);
    let next = FlowRecord::default();
    file.load_into(&next).expect("reads");
    assert_eq!(everything(&next), everything(&record), "each file begins with everything");
    RecordFile::remove_all(state.path()).expect("removed");
    assert!(!record_directory(state.path()).exists());
}
