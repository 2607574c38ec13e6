//! The `policy-agent` binary.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// mimalloc returns the memory of a burst of connections, and of loading kernel types at startup,
/// to the system. glibc's arenas keep it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    policy_agent::cli::main()
}
