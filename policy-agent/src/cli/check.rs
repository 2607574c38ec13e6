//! `check`

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    file::SandboxFile,
    options,
    output::{self, Form, Output},
};
use crate::{
    agent::Law,
    config::Config,
    policy::{Normalised, SandboxSpec, warnings},
};

/// The loopback interface, which no sandbox is behind.
const LOOPBACK: &str = "lo";

/// Validate a file without an agent, and print what it means
///
/// Validates a file as `apply` would, without an agent, and prints what it means: host bits are
/// cleared, names are in the form that is compared, defaults are filled in. Entries that are right
/// and have no effect get warnings on stderr.
#[derive(Args)]
#[command(after_help = "Example:
  policy-agent check -f web.json && policy-agent apply -f web.json")]
pub struct Check {
    #[command(flatten)]
    file: SandboxFile,
    /// The agent's configuration, for its default_nameserver, platform_allow and platform_deny
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Refuse what would get warnings
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    output: Output,
}

impl Check {
    pub fn run(self) -> Result<(), Failure> {
        let law = law(&options::load(self.config)?)?;
        let specs = self.file.read()?;
        let mut meanings = Vec::with_capacity(specs.len());
        for spec in specs {
            let refuse = |invalid: &dyn std::fmt::Display| {
                Failure::BadInput(anyhow!("sandbox {}: {invalid}", spec.sandbox_id))
            };
            if spec.interface == LOOPBACK {
                return Err(refuse(
                    &"interface: \"lo\": is the loopback interface; name a tap or veth",
                ));
            }
            let policy = law.judge(&spec).map_err(|invalid| refuse(&invalid))?;
            for warning in warnings(&spec.network, &policy, &law.floor) {
                if self.strict {
                    return Err(refuse(&warning));
                }
                output::note("warning", format_args!("sandbox {}: {warning}", spec.sandbox_id));
            }
            meanings.push((spec, policy.normalised()));
        }
        match self.output.form {
            Form::Table => meanings.iter().try_for_each(|(spec, meaning)| show(spec, meaning)),
            Form::Json => print_json(&meanings),
        }
    }
}

/// What holds for all sandboxes under a configuration.
pub fn law(config: &Config) -> Result<Law, Failure> {
    let floor = config.floor().map_err(Failure::BadInput)?;
    Ok(Law { floor, defaults: config.defaults() })
}

/// One object for one sandbox, else an array: what `apply` takes.
fn print_json(meanings: &[(SandboxSpec, Normalised)]) -> Result<(), Failure> {
    let mut objects = Vec::with_capacity(meanings.len());
    for (spec, meaning) in meanings {
        let mut object = serde_json::to_value(spec)?;
        object["allowInternetAccess"] = json!(meaning.allow_internet_access);
        object["network"] = serde_json::to_value(&meaning.network)?;
        objects.push(object);
    }
    match objects.as_slice() {
        [only] => output::json(only),
        all => output::json(&all),
    }
}

fn show(spec: &SandboxSpec, meaning: &Normalised) -> Result<(), Failure> {
    let network = &meaning.network;
    output::line(format_args!("sandbox {} on {}", spec.sandbox_id, spec.interface))?;
    field("allowInternetAccess", meaning.allow_internet_access)?;
    list("allowOut", spec.network.allow_out.as_deref(), &network.allow_out)?;
    list("denyOut", spec.network.deny_out.as_deref(), &network.deny_out)?;
    let rest = serde_json::to_value(network)?;
    let Value::Object(rest) = rest else { return Ok(()) };
    let rest = rest.iter().filter(|(name, _)| !["allowOut", "denyOut"].contains(&name.as_str()));
    for (name, value) in rest {
        field(name, value)?;
    }
    Ok(())
}

fn list(name: &str, written: Option<&[String]>, meant: &[String]) -> Result<(), Failure> {
    let written = written.unwrap_or_default();
    for (place, meant) in meant.iter().enumerate() {
        let name = format!("{name}[{place}]");
        match written.get(place).filter(|written| *written != meant) {
            Some(written) => field(&name, format_args!("{meant}   (written: {written})"))?,
            None => field(&name, meant)?,
        }
    }
    Ok(())
}

fn field(name: &str, value: impl std::fmt::Display) -> Result<(), Failure> {
    output::line(format_args!("  {name:<22}{value}"))
}
