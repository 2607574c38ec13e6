//! An agent that starts with the programs that are in place does not load them again.

use std::fs;

use policy_agent::dataplane::{
    AttachMethod, Dataplane, DataplaneSettings, DenyAction, GuardMark, GuardMethod, GuardSettings,
    HookMode, InboundSource, TableKind,
};
use policy_common::ABI_VERSION;
use policy_testbed::network::BpffsDirectory;

/// Opens and closes the dataplane. Returns the programs that are in place.
fn installed_programs(bpffs: &BpffsDirectory, mark: GuardMark) -> Vec<String> {
    let settings = DataplaneSettings {
        bpffs: bpffs.path().to_owned(),
        mode: HookMode::Tc,
        attach_method: AttachMethod::Auto,
        expedite_rcu: true,
        tables: TableKind::Flat,
        deny_action: DenyAction::Drop,
        inbound_source: InboundSource::Any,
        guard: GuardSettings { method: GuardMethod::Off, mark },
    };
    let opened = Dataplane::open(settings);
    opened.unwrap_or_else(|error| panic!("{error:#}")).open_event_reader().expect("a reader");
    let programs = bpffs.path().join(format!("v{ABI_VERSION}/programs"));
    let digest = fs::read_dir(programs).expect("a record").next().expect("a digest");
    let names = fs::read_dir(digest.expect("an entry").path()).expect("programs");
    let mut names: Vec<_> = names
        .map(|name| name.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn the_same_programs_stay_in_place() {
    let bpffs = BpffsDirectory::create().expect("a directory");
    let first = installed_programs(&bpffs, GuardMark::default());
    assert_eq!(first.len(), 7);
    assert_eq!(installed_programs(&bpffs, GuardMark::default()), first);
}

#[test]
fn programs_with_another_mark_replace_them() {
    let bpffs = BpffsDirectory::create().expect("a directory");
    let first = installed_programs(&bpffs, GuardMark::default());
    let other = GuardMark::try_from(1 << 20).expect("a mark");
    let second = installed_programs(&bpffs, other);
    assert!(first.iter().all(|program| !second.contains(program)), "{first:?} {second:?}");
    assert_eq!(installed_programs(&bpffs, other), second);
}
