//! The `check` command.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::{
    cli_failure::CliFailure,
    config_args,
    output::{self, OutputArgs, OutputFormat},
    sandbox_file::{FILES_HELP, FileSandbox, read_all},
};
use crate::{
    agent::PlatformPolicy,
    config::AgentConfig,
    policy::{NormalisedPolicy, SandboxSpec, policy_warnings},
};

/// The loopback interface. No sandbox is behind it.
const LOOPBACK: &str = crate::policy::LOOPBACK_INTERFACE;

/// Validate files without an agent, and print their effective policies
///
/// Validates files as `apply` does, but does not contact an agent. Prints the effective policy:
/// host bits are cleared, names are normalised, defaults are filled in. Valid entries without
/// effect get warnings on stderr.
#[derive(Args)]
#[command(after_help = "Example:
  policy-agent check -f web.json && policy-agent apply -f web.json")]
pub(super) struct CheckCommand {
    #[arg(short = 'f', long = "file", value_name = "FILE", num_args = 1.., help = FILES_HELP)]
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The agent's configuration, for default_nameserver and platform_allow, _deny and _deny_add
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Treat warnings as errors
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl CheckCommand {
    pub(super) fn run(self) -> Result<(), CliFailure> {
        let platform_policy = platform_policy(&config_args::load_config(self.config)?)?;
        let sandboxes = read_all(&self.paths)?;
        let mut normalised_specs = Vec::with_capacity(sandboxes.len());
        for FileSandbox { spec, .. } in sandboxes {
            let reject = |invalid: &dyn std::fmt::Display| {
                CliFailure::BadInput(anyhow!("sandbox {}: {invalid}", spec.sandbox_id))
            };
            if spec.interface == LOOPBACK {
                return Err(reject(
                    &"interface: \"lo\": is the loopback interface; name a tap or veth",
                ));
            }
            let policy =
                platform_policy.policy_for_spec(&spec).map_err(|invalid| reject(&invalid))?;
            for warning in policy_warnings(&spec.network, &policy, &platform_policy.floor) {
                if self.strict {
                    return Err(reject(&warning));
                }
                output::print_note(
                    "warning",
                    format_args!("sandbox {}: {warning}", spec.sandbox_id),
                );
            }
            normalised_specs.push((spec, policy.normalised()));
        }
        match self.output.format {
            OutputFormat::Table => normalised_specs
                .iter()
                .try_for_each(|(spec, normalised)| print_normalised(spec, normalised)),
            OutputFormat::Json => print_normalised_json(&normalised_specs),
        }
    }
}

/// The platform policy of a configuration, which applies to all sandboxes.
pub(super) fn platform_policy(config: &AgentConfig) -> Result<PlatformPolicy, CliFailure> {
    let floor = config.floor().map_err(CliFailure::BadInput)?;
    Ok(PlatformPolicy { floor, defaults: config.defaults() })
}

/// Prints one object for a single sandbox, otherwise an array. `apply` accepts both.
fn print_normalised_json(
    normalised_specs: &[(SandboxSpec, NormalisedPolicy)],
) -> Result<(), CliFailure> {
    let mut objects = Vec::with_capacity(normalised_specs.len());
    for (spec, normalised) in normalised_specs {
        let mut object = serde_json::to_value(spec)?;
        object["allowInternetAccess"] = json!(normalised.allow_internet_access);
        object["network"] = serde_json::to_value(&normalised.network)?;
        objects.push(object);
    }
    match objects.as_slice() {
        [only] => output::print_json(only),
        all => output::print_json(&all),
    }
}

fn print_normalised(spec: &SandboxSpec, normalised: &NormalisedPolicy) -> Result<(), CliFailure> {
    let network = &normalised.network;
    output::print_line(format_args!("sandbox {} on {}", spec.sandbox_id, spec.interface))?;
    print_field("allowInternetAccess", normalised.allow_internet_access)?;
    print_list("allowOut", spec.network.allow_out.as_deref(), &network.allow_out)?;
    print_list("denyOut", spec.network.deny_out.as_deref(), &network.deny_out)?;
    let fields = serde_json::to_value(network)?;
    let Value::Object(fields) = fields else { return Ok(()) };
    let fields =
        fields.iter().filter(|(name, _)| !["allowOut", "denyOut"].contains(&name.as_str()));
    for (name, value) in fields {
        print_field(name, value)?;
    }
    Ok(())
}

fn print_list(
    name: &str,
    written: Option<&[String]>,
    effective: &[String],
) -> Result<(), CliFailure> {
    let written = written.unwrap_or_default();
    for (index, effective) in effective.iter().enumerate() {
        let name = format!("{name}[{index}]");
        match written.get(index).filter(|written| *written != effective) {
            Some(written) => {
                print_field(&name, format_args!("{effective}   (written: {written})"))?
            }
            None => print_field(&name, effective)?,
        }
    }
    Ok(())
}

fn print_field(name: &str, value: impl std::fmt::Display) -> Result<(), CliFailure> {
    output::print_line(format_args!("  {name:<22}{value}"))
}
