//! The `bugreport` command.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use clap::Args;

use super::{
    cli_failure::CliFailure, client::ApiClient, config_args::LocationArgs, output,
    runtime::block_on,
};
use crate::{build_info::version_line, config::AgentConfig, dataplane::Dataplane, doctor};

/// The paths of the API that the report contains.
const API_PATHS: [&str; 4] =
    ["/health", "/agent/v1/sandboxes", "/metrics", "/agent/v1/events?follow=false&all=true"];
/// Files of the host that say what it is.
const HOST_FILES: [&str; 4] =
    ["/proc/version", "/etc/os-release", "/proc/meminfo", "/sys/kernel/security/lockdown"];
/// Programs whose output says how the host routes and filters.
const HOST_PROGRAMS: [&[&str]; 5] = [
    &["ip", "-details", "link"],
    &["ip", "address"],
    &["ip", "rule"],
    &["ip", "-6", "rule"],
    &["nft", "list", "tables"],
];

/// Write a report for the developers to a file
///
/// Collects the state of the agent and of the host: versions, the findings of `doctor`, the
/// configuration, sandboxes with their policies and counters, events and metrics. It contains no
/// keys, tokens or passwords, but names and addresses: read it before you pass it on.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent bugreport --config /etc/policy-agent.toml
  policy-agent bugreport --file - | less")]
pub(super) struct BugreportCommand {
    #[command(flatten)]
    locations: LocationArgs,
    /// The new file, or - for stdout
    #[arg(long, value_name = "FILE", default_value = "policy-agent-bugreport.txt")]
    file: PathBuf,
}

impl BugreportCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let report = report_text(&self.locations.load()?, socket)?;
        if self.file == Path::new("-") {
            return output::print_line(report.trim_end());
        }
        let path = self.file.display();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file);
        let written = file.and_then(|mut file| file.write_all(report.as_bytes()));
        written.with_context(|| format!("cannot write {path}; --file names another place"))?;
        output::print_line(format_args!("{path}: read it before you pass it on"))
    }
}

/// The whole report. What cannot be found out is part of it.
fn report_text(config: &AgentConfig, socket: &Path) -> Result<String, CliFailure> {
    let mut report = String::new();
    add_section(&mut report, "policy-agent", version_line());
    let findings = doctor::run_checks(config, socket);
    add_section(&mut report, "doctor", &serde_json::to_string_pretty(&findings)?);
    add_section(&mut report, "configuration", &config.to_redacted_toml(true)?);
    for path in HOST_FILES {
        add_section(&mut report, path, &text_or_error(fs::read_to_string(path)));
    }
    for program in HOST_PROGRAMS {
        add_section(&mut report, &program.join(" "), &program_output(program));
    }
    add_section(&mut report, "pins", &pinned_files(&config.bpffs));
    let others = Dataplane::other_agents(&config.bpffs);
    add_section(&mut report, "other agents", &format!("{others:?}"));
    let client = ApiClient::new(socket);
    for path in API_PATHS {
        let answer = block_on(client.get(path))?;
        let answer = answer.map(|body| String::from_utf8_lossy(&body).into_owned());
        add_section(&mut report, path, &text_or_error(answer));
    }
    Ok(report)
}

fn add_section(report: &mut String, title: &str, text: &str) {
    report.extend(["== ", title, " ==\n", text.trim_end(), "\n\n"]);
}

fn text_or_error(text: Result<String, impl std::fmt::Display>) -> String {
    text.unwrap_or_else(|error| format!("(not known: {error})"))
}

fn program_output(words: &[&str]) -> String {
    let [program, arguments @ ..] = words else { return String::new() };
    let output = Command::new(program).args(arguments).output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text_or_error(output.map(|output| text(&output.stdout) + &text(&output.stderr)))
}

/// The paths below the directory of pins.
fn pinned_files(directory: &Path) -> String {
    let mut lines = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            lines.push(entry.path().display().to_string());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    lines.sort();
    lines.join("\n")
}
