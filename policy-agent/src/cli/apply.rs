//! The `apply` command.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;
use hyper::Method;
use serde::{Deserialize, Serialize};

use super::{
    cli_failure::CliFailure,
    client::ApiClient,
    container_args::{ContainerArgs, container_sandbox},
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
    sandbox_file::{FILES_HELP, FileSandbox, read_all},
};
use crate::{
    api::{BODY_LIMIT, parse_until},
    policy::{PolicyMode, SandboxSpec},
};

/// Create or replace the sandboxes in files
///
/// All sandboxes of all files are validated before the first one is changed; then each is changed as a
/// whole or not at all. More than 64 MiB is sent in several batches, each of which is validated as a
/// whole. When the command succeeds, the kernel enforces every policy. It says which sandboxes are
/// created, changed and unchanged. Valid entries without effect get warnings on stderr.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent apply -f web.json
  policy-agent apply --docker web -f policy.json
  policy-agent apply -f web.json --diff --dry-run
  policy-agent apply -f /etc/sandboxes/ more.yaml
  jq -c .sandboxes[] fleet.json | policy-agent apply -f -")]
pub(super) struct ApplyCommand {
    #[arg(short = 'f', long = "file", value_name = "FILE", num_args = 1.., help = FILES_HELP)]
    #[arg(required_unless_present_any = ["docker", "podman"])]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    container: ContainerArgs,
    /// Treat warnings as errors
    #[arg(long)]
    strict: bool,
    /// Allow an interface that carries the host's default route; the policy may cut the host off
    #[arg(long)]
    force: bool,
    /// Validate in the agent and show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Observe the sandboxes: what their policies deny passes and is recorded, the floor is enforced
    #[arg(long)]
    observe: bool,
    /// With --observe: enforce the policies again after this time, like 30m, 1h or 7d
    #[arg(long = "for", value_name = "TIME", requires = "observe")]
    duration: Option<String>,
    /// List the entries and fields that differ from the sandboxes in force
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// The agent's result for one sandbox.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReceivedOutcome {
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    /// The file that it is from, which only this command knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<String>,
    #[serde(default)]
    added: usize,
    #[serde(default)]
    removed: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    diff: Vec<String>,
    #[serde(default, skip_serializing)]
    warnings: Vec<String>,
}

impl ApplyCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let sandboxes = match self.container.reference()? {
            Some(container) => vec![container_sandbox(&container, &self.paths)?],
            None => read_all(&self.paths)?,
        };
        let files: HashMap<_, _> = sandboxes.iter().map(FileSandbox::file_by_id).collect();
        let mut specs: Vec<_> = sandboxes.into_iter().map(|sandbox| sandbox.spec).collect();
        if self.observe {
            observe_all(&mut specs, self.duration.as_deref())?;
        }
        let batches = json_batches(&specs)?;
        let client = ApiClient::new(socket);
        let mut outcomes = Vec::<ReceivedOutcome>::new();
        let Self { strict, force, dry_run, diff, .. } = self;
        let path = format!(
            "/agent/v1/sandboxes?strict={strict}&force={force}&dryRun={dry_run}&diff={diff}"
        );
        for batch in batches {
            let response = block_on(client.request(Method::PUT, &path, batch.into()))??;
            outcomes.extend(serde_json::from_slice::<Vec<ReceivedOutcome>>(&response)?);
        }
        for outcome in &mut outcomes {
            outcome.file = files.get(&outcome.sandbox_id).cloned();
        }
        for ReceivedOutcome { sandbox_id, warnings, .. } in &outcomes {
            for warning in warnings {
                output::print_note("warning", format_args!("sandbox {sandbox_id}: {warning}"));
            }
        }
        for spec in specs.iter().filter(|spec| spec.mode == PolicyMode::Observe) {
            let id = &spec.sandbox_id;
            output::print_note("note", format_args!("sandbox {id} is observed, not enforced"));
        }
        match self.output.format {
            OutputFormat::Json => output::print_json(&outcomes)?,
            OutputFormat::Table => outcomes.iter().try_for_each(print_outcome)?,
        }
        if self.dry_run {
            output::print_note("note", "nothing was changed");
        }
        let failures: Vec<_> =
            outcomes.iter().filter_map(|outcome| outcome.message.as_deref()).collect();
        match failures.as_slice() {
            [] => Ok(()),
            [only] => Err(CliFailure::Failed(anyhow!("{only}"))),
            [first, rest @ ..] => {
                let other_failures = rest.len();
                Err(CliFailure::Failed(anyhow!("{first}").context(format!(
                    "{} of {} sandboxes were not applied",
                    other_failures + 1,
                    outcomes.len()
                ))))
            }
        }
    }
}

/// Sets the mode of all sandboxes.
fn observe_all(specs: &mut [SandboxSpec], duration: Option<&str>) -> Result<(), CliFailure> {
    let until = duration.map(|text| parse_until("--for", text)).transpose()?;
    specs.iter_mut().for_each(|spec| spec.observe(until));
    Ok(())
}

/// Serializes the sandboxes as JSON arrays that fit into the agent's body limit: a single one,
/// unless the file is huge.
fn json_batches(specs: &[SandboxSpec]) -> Result<Vec<String>, CliFailure> {
    let mut batches = vec![String::new()];
    for spec in specs {
        let text = spec.to_json_with_secrets()?.to_string();
        let is_full =
            |batch: &String| !batch.is_empty() && batch.len() + text.len() + 3 > BODY_LIMIT;
        if batches.last().is_none_or(is_full) {
            batches.push(String::new());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(if batch.is_empty() { '[' } else { ',' });
            batch.push_str(&text);
        }
    }
    Ok(batches.into_iter().map(|batch| batch + "]").collect())
}

fn print_outcome(outcome: &ReceivedOutcome) -> Result<(), CliFailure> {
    let ReceivedOutcome { sandbox_id, message, effect, added, removed, diff, .. } = outcome;
    if let Some(message) = message {
        return output::print_line(format_args!("{sandbox_id} not applied: {message}"));
    }
    match effect.as_deref() {
        Some("changed") if added + removed > 0 => {
            output::print_line(format_args!("{sandbox_id} changed (+{added} −{removed})"))?;
        }
        effect => output::print_line(format_args!("{sandbox_id} {}", effect.unwrap_or("applied")))?,
    }
    diff.iter().try_for_each(|line| output::print_line(format_args!("  {line}")))
}
