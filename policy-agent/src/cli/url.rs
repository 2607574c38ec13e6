//! The `url` command.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::{
    api_path::escape_path_segment,
    cli_failure::CliFailure,
    client::ApiClient,
    output::{self, OutputArgs, OutputFormat},
    runtime::block_on,
};
use crate::api::{PublicUrl, TrafficToken};

/// Print the public URL of a port of a sandbox
///
/// Where `allowPublicTraffic` is false, requests need the header e2b-traffic-access-token; --token
/// prints its value.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent url web 3000
  policy-agent url web 3000 --token -o json")]
pub(super) struct UrlCommand {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
    /// The port that the service in the sandbox listens on
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Also print the traffic token, which is a secret
    #[arg(long)]
    token: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl UrlCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let client = ApiClient::new(socket);
        let sandbox = format!("/agent/v1/sandboxes/{}", escape_path_segment(&self.id));
        let path = format!("{sandbox}/url?port={}", self.port);
        let public_url: PublicUrl = serde_json::from_slice(&block_on(client.get(&path))??)?;
        let token = match self.token {
            true => Some(block_on(client.get(&format!("{sandbox}/token")))??),
            false => None,
        };
        let token =
            token.map(|token| serde_json::from_slice::<TrafficToken>(&token)).transpose()?;
        let token = token.map(|token| token.traffic_access_token);
        match self.output.format {
            OutputFormat::Json => output::print_json(&to_json(&public_url, token)),
            OutputFormat::Table => print_url(&public_url, token),
        }
    }
}

fn to_json(public_url: &PublicUrl, token: Option<String>) -> Value {
    let mut value = json!({ "url": public_url.url, "public": public_url.public });
    if let Some(token) = token {
        value["trafficAccessToken"] = token.into();
    }
    value
}

fn print_url(public_url: &PublicUrl, token: Option<String>) -> Result<(), CliFailure> {
    output::print_line(&public_url.url)?;
    token.map_or(Ok(()), |token| {
        output::print_line(format_args!("e2b-traffic-access-token: {token}"))
    })
}
