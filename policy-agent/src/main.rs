//! The `policy-agent` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    policy_agent::cli::main()
}
