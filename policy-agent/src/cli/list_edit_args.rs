//! The arguments of `allow` and `deny`, which differ in the list that they change.

use std::path::Path;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{
    api_path::escape_path_segment,
    cli_failure::CliFailure,
    client::ApiClient,
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
};
use crate::api::ListEditRequest;

/// A change of one list of a sandbox.
#[derive(Args)]
pub(super) struct ListEditArgs {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
    /// The entries, as in a policy
    #[arg(value_name = "ENTRY", required = true)]
    entries: Vec<String>,
    /// Remove the entries
    #[arg(long, conflicts_with = "duration")]
    remove: bool,
    /// Validate and show the change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove the added entries again after this time, like 30m, 1h or 7d
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

impl ListEditArgs {
    /// Sends the change. `verb` is the last part of the path.
    pub(super) fn run(self, socket: &Path, verb: &str) -> Result<(), CliFailure> {
        let Self { id, entries, remove, dry_run, duration, output } = self;
        let path = format!("/agent/v1/sandboxes/{}/{verb}", escape_path_segment(&id));
        let request = ListEditRequest { entries, remove, dry_run, duration };
        let body = serde_json::to_vec(&request)?;
        let client = ApiClient::new(socket);
        let response = block_on(client.request(Method::POST, &path, body.into()))??;
        let edited: Value = serde_json::from_slice(&response)?;
        match output.format {
            OutputFormat::Json => output::print_json(&edited),
            OutputFormat::Table => print_edited(&edited),
        }
    }
}

fn print_edited(edited: &Value) -> Result<(), CliFailure> {
    let list = edited["list"].as_str().unwrap_or_default();
    let until = edited["until"].as_str().map(|until| format!(" until {until}"));
    let until = until.unwrap_or_default();
    for (field, sign, note) in
        [("added", '+', &*until), ("removed", '-', ""), ("unchanged", '=', "")]
    {
        for entry in edited[field].as_array().into_iter().flatten() {
            let entry = entry.as_str().unwrap_or_default();
            output::print_line(format_args!("{sign} {list} {entry}{note}"))?;
        }
    }
    if edited["dryRun"] == true {
        output::print_note("note", "nothing was changed");
    }
    Ok(())
}
