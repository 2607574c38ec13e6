//! How much of the verifier's patience the programs use. A million instructions is the limit; a
//! jump here means that it has begun to judge paths apart that it judged together.

use aya::{programs::loaded_programs, util::KernelVersion};
use policy_agent::dataplane::{DenyAction, InboundSource};
use policy_common::bpf_names::{EARLY_DROP, FROM_SANDBOX, PROXY_REDIRECT, REJECT, TO_SANDBOX};
use policy_integration::program_runner::ProgramRunner;

/// Instructions that the verifier may look at, by program.
const INSTRUCTION_LIMITS: [(&str, u32); 5] = [
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
    // Before, the kernel does not tell how many it looked at, and its limit of a million is the only
    // one.
    if KernelVersion::current().expect("a version") < KernelVersion::new(5, 16, 0) {
        return;
    }
    let programs: Vec<_> = loaded_programs().filter_map(Result::ok).collect();
    for (name, ceiling) in INSTRUCTION_LIMITS {
        // Of several that are loaded, the newest.
        let program = programs.iter().rfind(|program| program.name_as_str() == Some(name));
        let program = program.unwrap_or_else(|| panic!("{name} is not loaded"));
        let verified = program.verified_instruction_count().expect("the kernel tells");
        println!("{name}: {verified} instructions verified, {ceiling} allowed");
        assert!(verified <= ceiling, "{name} takes {verified} instructions, {ceiling} are allowed");
    }
}
