//! How much of the verifier's patience the programs use. A million instructions is the limit; a
//! jump here means that it has begun to judge paths apart that it judged together.

use aya::{programs::loaded_programs, util::KernelVersion};
use policy_agent::dataplane::{DenyAction, Inbound};
use policy_common::name::{EARLY_DROP, FROM_SANDBOX, HAND_OVER, REJECT, TO_SANDBOX};
use policy_tests::kernel::Kernel;

/// Instructions that the verifier may look at, by program.
const CEILINGS: [(&str, u32); 5] = [
    (FROM_SANDBOX, 200_000),
    (TO_SANDBOX, 50_000),
    (REJECT, 5_000),
    (HAND_OVER, 50_000),
    (EARLY_DROP, 150_000),
];

#[test]
fn the_verifier_is_done_soon() {
    let _kernel =
        Kernel::open(DenyAction::Reject, Inbound::Any).unwrap_or_else(|e| panic!("{e:#}"));
    // Before, the kernel does not tell how many it looked at, and its limit of a million is the only
    // one.
    if KernelVersion::current().expect("a version") < KernelVersion::new(5, 16, 0) {
        return;
    }
    let programs: Vec<_> = loaded_programs().filter_map(Result::ok).collect();
    for (name, ceiling) in CEILINGS {
        // Of several that are loaded, the newest.
        let program = programs.iter().rfind(|program| program.name_as_str() == Some(name));
        let program = program.unwrap_or_else(|| panic!("{name} is not loaded"));
        let verified = program.verified_instruction_count().expect("the kernel tells");
        println!("{name}: {verified} instructions verified, {ceiling} allowed");
        assert!(verified <= ceiling, "{name} takes {verified} instructions, {ceiling} are allowed");
    }
}
