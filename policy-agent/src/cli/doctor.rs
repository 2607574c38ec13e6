//! The `doctor` command.

use std::path::Path;

use clap::Args;
use hyper::{Method, body::Bytes};

use super::{
    api_path::escape_path_segment,
    cli_failure::CliFailure,
    client::ApiClient,
    config_args::LocationArgs,
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
};
use crate::doctor::{DoctorFinding, FindingState, run_checks};

/// Check that this machine meets the agent's requirements, or that a sandbox is enforced
///
/// Lists the requirements that this machine meets, and how to fix the others. With --config, also
/// checks the interfaces, listeners, certificate and resolvers of the configuration.
///
/// With ID, asks the running agent about one sandbox: its interface, programs, guard, listeners, names and
/// secrets, and what the kernel decides about a datagram, which is counted like any other.
///
/// Exit status 1 if something is broken.
#[derive(Args)]
pub(super) struct DoctorCommand {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    locations: LocationArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl DoctorCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let findings = match &self.id {
            Some(id) => diagnose(socket, id)?,
            None => run_checks(&self.locations.load()?, socket),
        };
        match self.output.format {
            OutputFormat::Json => output::print_json(&findings)?,
            OutputFormat::Table => findings.iter().try_for_each(print_finding)?,
        }
        let missing = findings.iter().any(|finding| finding.state == FindingState::Missing);
        if missing { Err(CliFailure::AlreadyReported) } else { Ok(()) }
    }
}

/// Asks the agent about a sandbox.
fn diagnose(socket: &Path, id: &str) -> Result<Vec<DoctorFinding>, CliFailure> {
    let path = format!("/agent/v1/sandboxes/{}/diagnosis", escape_path_segment(id));
    let answer = block_on(ApiClient::new(socket).request(Method::POST, &path, Bytes::new()))??;
    Ok(serde_json::from_slice(&answer)?)
}

fn print_finding(finding: &DoctorFinding) -> Result<(), CliFailure> {
    let DoctorFinding { state, what, found, fix } = finding;
    output::print_line(format_args!("{:<10}{what:<22}{found}", state.label()))?;
    match fix {
        Some(fix) => output::print_line(format_args!("{:<10}{:<22}→ {fix}", "", "")),
        None => Ok(()),
    }
}
