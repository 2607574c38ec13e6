//! `url`

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::{
    delete::path_segment,
    failure::Failure,
    output::{self, Form, Output},
    run::block_on,
};
use crate::{
    api::{PublicUrl, Token},
    client::Client,
};

/// Say where a port of a sandbox is reached
///
/// Prints the public URL of a port of a sandbox. Where `allowPublicTraffic` is false it works only
/// with the header e2b-traffic-access-token, whose value --token prints as well.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent url web 3000
  policy-agent url web 3000 --token -o json")]
pub struct Url {
    /// The sandbox
    #[arg(value_name = "ID")]
    id: String,
    /// The port that the service in it listens on
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Print the traffic token, too: a secret
    #[arg(long)]
    token: bool,
    #[command(flatten)]
    output: Output,
}

impl Url {
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let client = Client::new(socket);
        let sandbox = format!("/agent/v1/sandboxes/{}", path_segment(&self.id));
        let path = format!("{sandbox}/url?port={}", self.port);
        let at: PublicUrl = serde_json::from_slice(&block_on(client.get(&path))??)?;
        let token = match self.token {
            true => Some(block_on(client.get(&format!("{sandbox}/token")))??),
            false => None,
        };
        let token = token.map(|token| serde_json::from_slice::<Token>(&token)).transpose()?;
        let token = token.map(|token| token.traffic_access_token);
        match self.output.form {
            Form::Json => output::json(&as_json(&at, token)),
            Form::Table => show(&at, token),
        }
    }
}

fn as_json(at: &PublicUrl, token: Option<String>) -> Value {
    let mut value = json!({ "url": at.url, "public": at.public });
    if let Some(token) = token {
        value["trafficAccessToken"] = token.into();
    }
    value
}

fn show(at: &PublicUrl, token: Option<String>) -> Result<(), Failure> {
    output::line(&at.url)?;
    token.map_or(Ok(()), |token| output::line(format_args!("e2b-traffic-access-token: {token}")))
}
