//! How many instructions the verifier processes for each program. The limit is one million. A
//! sudden increase means that the verifier examines paths separately that it merged before.

use aya::{programs::loaded_programs, util::KernelVersion};
use policy_agent::dataplane::{DenyAction, InboundSource};
use policy_common::bpf_names::{
    EARLY_DROP, FAST_DELIVERY, FAST_PATH, FROM_SANDBOX, PROXY_REDIRECT, REJECT, TO_SANDBOX,
};
use policy_integration::program_runner::ProgramRunner;

/// The maximum number of processed instructions per program.
const INSTRUCTION_LIMITS: [(&str, u32); 7] = [
    (FAST_PATH, 100_000),
    (FAST_DELIVERY, 5_000),
    (FROM_SANDBOX, 200_000),
    (TO_SANDBOX, 50_000),
    (REJECT, 5_000),
    (PROXY_REDIRECT, 50_000),
    (EARLY_DROP, 150_000),
];

#[test]
fn programs_stay_within_the_verifier_budget() {
    let _kernel = ProgramRunner::open(DenyAction::Reject, InboundSource::Any)
        .unwrap_or_else(|e| panic!("{e:#}"));
    // Older kernels do not report the number; the only limit there is their own of one million.
    if KernelVersion::current().expect("a version") < KernelVersion::new(5, 16, 0) {
        return;
    }
    let programs: Vec<_> = loaded_programs().filter_map(Result::ok).collect();
    for (name, ceiling) in INSTRUCTION_LIMITS {
        // The newest of several loaded programs with this name.
        let program = programs.iter().rfind(|program| program.name_as_str() == Some(name));
        let program = program.unwrap_or_else(|| panic!("{name} is not loaded"));
        let verified = program.verified_instruction_count().expect("the kernel tells");
        println!("{name}: {verified} instructions verified, {ceiling} allowed");
        assert!(verified <= ceiling, "{name} takes {verified} instructions, {ceiling} are allowed");
    }
}
