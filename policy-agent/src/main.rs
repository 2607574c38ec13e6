//! The `policy-agent` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Gives back what a burst of connections, or the kernel's types at the start, took: glibc's arenas
/// keep it for good.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    policy_agent::cli::main()
}
