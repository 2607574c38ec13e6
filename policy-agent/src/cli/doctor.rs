//! The `doctor` command.

use std::path::Path;

use clap::Args;

use super::{
    cli_failure::CliFailure,
    config_args::LocationArgs,
    output::{self, OutputArgs, OutputFormat},
};
use crate::doctor::{DoctorFinding, FindingState, run_checks};

/// Check that this machine meets the agent's requirements
///
/// Lists the requirements that this machine meets, and how to fix the others. With --config, also
/// checks the interfaces, listeners, certificate and resolvers of the configuration. Exit status 1
/// if something is broken.
#[derive(Args)]
pub(super) struct DoctorCommand {
    #[command(flatten)]
    locations: LocationArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl DoctorCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let config = self.locations.load()?;
        let findings = run_checks(&config, socket);
        match self.output.format {
            OutputFormat::Json => output::print_json(&findings)?,
            OutputFormat::Table => findings.iter().try_for_each(print_finding)?,
        }
        let missing = findings.iter().any(|finding| finding.state == FindingState::Missing);
        if missing { Err(CliFailure::AlreadyReported) } else { Ok(()) }
    }
}

fn print_finding(finding: &DoctorFinding) -> Result<(), CliFailure> {
    let DoctorFinding { state, what, found, fix } = finding;
    output::print_line(format_args!("{:<10}{what:<22}{found}", state.label()))?;
    match fix {
        Some(fix) => output::print_line(format_args!("{:<10}{:<22}→ {fix}", "", "")),
        None => Ok(()),
    }
}
