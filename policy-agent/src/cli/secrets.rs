//! The `secrets` command.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use hyper::{Method, StatusCode, body::Bytes};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{
    api_path::escape_path_segment,
    cli_failure::CliFailure,
    client::{ApiClient, ApiClientError},
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
};

/// Manage the secrets that headers of network.rules refer to
///
/// A header's value holds ${e2b.secrets.NAME}, and the agent puts the secret's value in its place
/// when it sends a request. A new value holds for the next request. Values are never shown.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent secrets set example < token.txt
  printf %s \"$TOKEN\" | policy-agent secrets set example --metadata owner=web
  policy-agent secrets list
  policy-agent secrets delete example")]
pub(super) struct SecretsCommand {
    #[command(subcommand)]
    action: SecretsAction,
}

#[derive(Subcommand)]
enum SecretsAction {
    /// List all secrets, without their values
    List(OutputArgs),
    /// Create a secret, or give it a new value, from standard input
    ///
    /// A newline at the end does not belong to the value. The value is never an argument, because
    /// other users see those.
    Set {
        /// The secret: letters, digits, _ and -
        #[arg(value_name = "NAME")]
        name: String,
        /// Store this with the secret, in place of what was stored; repeatable
        #[arg(long, value_name = "KEY=VALUE")]
        metadata: Vec<String>,
    },
    /// Delete a secret; requests that need it are refused from then on
    Delete {
        /// The name or the ID of the secret
        #[arg(value_name = "NAME")]
        name: String,
    },
}

impl SecretsCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let client = ApiClient::new(socket);
        match self.action {
            SecretsAction::List(OutputArgs { format }) => list(&client, format),
            SecretsAction::Set { name, metadata } => set(&client, &name, &metadata),
            SecretsAction::Delete { name } => {
                block_on(client.request(Method::DELETE, &path_of(&name), Bytes::new()))??;
                output::print_line(format_args!("{name} deleted"))
            }
        }
    }
}

fn list(client: &ApiClient, format: OutputFormat) -> Result<(), CliFailure> {
    let (mut secrets, mut path) = (Vec::<Value>::new(), "/secrets".to_owned());
    loop {
        let page: Vec<Value> = serde_json::from_slice(&block_on(client.get(&path))??)?;
        let Some(last) = page.last().and_then(|last| last["name"].as_str()) else { break };
        path = format!("/secrets?nextToken={last}");
        secrets.extend(page);
    }
    if format == OutputFormat::Json {
        return output::print_json(&secrets);
    }
    let mut table = output::new_table(["NAME", "ID", "VERSION", "UPDATED", "SOURCE"]);
    for secret in &secrets {
        let text = |field: &str| secret[field].as_str().unwrap_or_default().to_owned();
        let version = secret["currentVersion"].to_string();
        table.add_row([text("name"), text("secretID"), version, text("updatedAt"), text("source")]);
    }
    output::print_table(&table)
}

fn set(client: &ApiClient, name: &str, metadata: &[String]) -> Result<(), CliFailure> {
    let metadata = parse_metadata(metadata)?;
    let value = read_value()?;
    let mut body = Map::from_iter([("value".to_owned(), Value::from(value.as_str()))]);
    if !metadata.is_empty() {
        body.insert("metadata".to_owned(), metadata.into());
    }
    let update = serde_json::to_vec(&body)?;
    let updated = block_on(client.request(Method::POST, &path_of(name), update.into()))?;
    let (answer, done) = match updated {
        Err(ApiClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
            body.insert("name".to_owned(), json!(name));
            let create = serde_json::to_vec(&body)?;
            (block_on(client.request(Method::POST, "/secrets", create.into()))??, "created")
        }
        updated => (updated?, "updated"),
    };
    let secret: Value = serde_json::from_slice(&answer)?;
    let name = secret["name"].as_str().unwrap_or(name);
    output::print_line(format_args!("{name} {done}, version {}", secret["currentVersion"]))
}

fn read_value() -> Result<Zeroizing<String>, CliFailure> {
    if io::stdin().is_terminal() {
        let problem = "give the value on standard input: policy-agent secrets set NAME < FILE";
        return Err(CliFailure::BadInput(anyhow!(problem)));
    }
    let mut text = Zeroizing::new(String::new());
    let read = io::stdin().lock().read_to_string(&mut text);
    read.context("the value on standard input is not text").map_err(CliFailure::BadInput)?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Zeroizing::new(value.strip_suffix('\r').unwrap_or(value).to_owned()))
}

fn parse_metadata(pairs: &[String]) -> Result<Map<String, Value>, CliFailure> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=')?;
        Some((key.to_owned(), value.into()))
    };
    let problem = || anyhow!("--metadata: write KEY=VALUE");
    pairs.iter().map(|text| pair(text).ok_or_else(|| CliFailure::BadInput(problem()))).collect()
}

fn path_of(name: &str) -> String {
    format!("/secrets/{}", escape_path_segment(name))
}
