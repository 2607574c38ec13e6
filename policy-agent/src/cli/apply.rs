//! `apply`

use std::path::Path;

use anyhow::anyhow;
use clap::Args;
use hyper::Method;
use serde::{Deserialize, Serialize};

use super::{
    failure::Failure,
    file::SandboxFile,
    output::{self, Form, Output},
    run::block_on,
};
use crate::{api::BODY_LIMIT, client::Client, policy::SandboxSpec};

/// Create or replace the sandboxes in a file
///
/// Creates or replaces the sandboxes in a file. All of them are checked before the first is
/// changed (a file over 64 MiB goes in several parts, each of which is checked as a whole). When
/// the command succeeds, the kernel enforces every policy in the file. Entries that are right and
/// have no effect get warnings on stderr.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent apply -f web.json
  jq -c .sandboxes[] fleet.json | policy-agent apply -f -")]
pub struct Apply {
    #[command(flatten)]
    file: SandboxFile,
    /// Refuse what would get warnings
    #[arg(long)]
    strict: bool,
    /// Also on an interface that carries the host's default route: the policy may cut the host off
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: Output,
}

/// What the agent says about one sandbox.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing)]
    warnings: Vec<String>,
}

impl Apply {
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let parts = parts(&self.file.read()?)?;
        let client = Client::new(socket);
        let mut outcomes = Vec::<Outcome>::new();
        let Self { strict, force, .. } = self;
        let path = format!("/agent/v1/sandboxes?strict={strict}&force={force}");
        for part in parts {
            let answer = block_on(client.whole(Method::PUT, &path, part.into()))??;
            outcomes.extend(serde_json::from_slice::<Vec<Outcome>>(&answer)?);
        }
        for Outcome { sandbox_id, warnings, .. } in &outcomes {
            for warning in warnings {
                output::note("warning", format_args!("sandbox {sandbox_id}: {warning}"));
            }
        }
        match self.output.form {
            Form::Json => output::json(&outcomes)?,
            Form::Table => outcomes.iter().try_for_each(show)?,
        }
        let failed: Vec<_> = outcomes.iter().filter_map(|it| it.message.as_deref()).collect();
        match failed.as_slice() {
            [] => Ok(()),
            [only] => Err(Failure::Failed(anyhow!("{only}"))),
            [first, rest @ ..] => {
                let more = rest.len();
                Err(Failure::Failed(anyhow!("{first}").context(format!(
                    "{} of {} sandboxes were not applied",
                    more + 1,
                    outcomes.len()
                ))))
            }
        }
    }
}

/// The sandboxes as JSON arrays of a size that the agent takes: one, if the file is not huge.
fn parts(specs: &[SandboxSpec]) -> Result<Vec<String>, Failure> {
    let mut parts = vec![String::new()];
    for spec in specs {
        let text = spec.with_secrets()?.to_string();
        let full = |part: &String| !part.is_empty() && part.len() + text.len() + 3 > BODY_LIMIT;
        if parts.last().is_none_or(full) {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(if part.is_empty() { '[' } else { ',' });
            part.push_str(&text);
        }
    }
    Ok(parts.into_iter().map(|part| part + "]").collect())
}

fn show(outcome: &Outcome) -> Result<(), Failure> {
    let Outcome { sandbox_id, message, .. } = outcome;
    match message {
        Some(message) => output::line(format_args!("{sandbox_id} not applied: {message}")),
        None => output::line(format_args!("{sandbox_id} applied")),
    }
}
