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
use crate::client::Client;

/// Creates or replaces the sandboxes in a file. All of them are checked before the first is
/// changed. When the command succeeds, the kernel enforces every policy in the file.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent apply -f web.json
  jq -c .sandboxes[] fleet.json | policy-agent apply -f -")]
pub struct Apply {
    #[command(flatten)]
    file: SandboxFile,
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
}

impl Apply {
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let specs = self.file.read()?;
        let body: Result<Vec<_>, _> = specs.iter().map(|spec| spec.with_secrets()).collect();
        let body = serde_json::to_vec(&body?)?;
        let client = Client::new(socket);
        let path = "/agent/v1/sandboxes";
        let answer = block_on(client.whole(Method::PUT, path, body.into()))??;
        let outcomes: Vec<Outcome> = serde_json::from_slice(&answer)?;
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

fn show(outcome: &Outcome) -> Result<(), Failure> {
    let Outcome { sandbox_id, message, .. } = outcome;
    match message {
        Some(message) => output::line(format_args!("{sandbox_id} not applied: {message}")),
        None => output::line(format_args!("{sandbox_id} applied")),
    }
}
