//! The `cleanup` command.

use std::{fs, io::ErrorKind, os::unix::net::UnixStream, path::Path};

use anyhow::anyhow;
use clap::Args;

use super::{cli_failure::CliFailure, config_args::LocationArgs, output};
use crate::{
    agent::SandboxStore,
    daemon::StateDirLock,
    dataplane::{Dataplane, HostInterface},
    events::RecordFile,
    secrets::SecretStore,
};

/// Detach everything, and remove pins and state
///
/// Removes all policies, which leaves the sandboxes' interfaces open. Also removes pins, state, the
/// record of flows, the secrets of the API and the gateway's self-signed certificate. Says what it left: files that are not
/// the agent's, and the interfaces themselves. Stop the agent first. Run this in the same network
/// namespace and with the agent's --config: sandboxes of other state directories stay attached.
#[derive(Args)]
pub(super) struct CleanupCommand {
    #[command(flatten)]
    locations: LocationArgs,
}

impl CleanupCommand {
    pub(super) fn run(self, socket: &Path) -> Result<(), CliFailure> {
        let is_default = self.locations.are_default();
        let config = self.locations.load()?;
        let lock = StateDirLock::acquire(&config.state_dir)?;
        let records = SandboxStore::open(&config.state_dir)?.load()?.records;
        let record_count = records.len();
        let interfaces: Vec<HostInterface> = records
            .into_iter()
            .map(|record| HostInterface { name: record.spec.interface, netns: record.spec.netns })
            .collect();
        let detached = Dataplane::cleanup(&config.bpffs, &interfaces)?;
        SandboxStore::remove_all(&config.state_dir)?;
        RecordFile::remove_all(&config.state_dir)?;
        SecretStore::remove_all(&config.state_dir)?;
        let certificate = remove_certificate(&config.state_dir)?;
        remove_if_empty(&config.bpffs);
        remove_stale_socket(socket);
        lock.remove();
        for pin_name in detached {
            match HostInterface::from_pin_name(&pin_name) {
                Some(interface) => {
                    output::print_line(format_args!("interface {} detached", interface.name))?
                }
                None => output::print_line(format_args!("{pin_name} detached"))?,
            }
        }
        let (state, pins) = (config.state_dir.display(), config.bpffs.display());
        output::print_line(format_args!(
            "{state}: {record_count} sandboxes forgotten{certificate}"
        ))?;
        output::print_line(format_args!("{pins}: pins removed"))?;
        output::print_line("clean")?;
        print_left_files(&config.state_dir);
        print_left_files(&config.bpffs);
        print_open_interfaces(&interfaces);
        print_remaining(&config.bpffs, is_default);
        Ok(())
    }
}

/// Removes the certificate and key that the gateway generated.
fn remove_certificate(state_dir: &Path) -> Result<&'static str, CliFailure> {
    match fs::remove_dir_all(state_dir.join("gateway")) {
        Ok(()) => Ok(", the gateway's self-signed certificate and key removed"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(""),
        Err(error) => {
            Err(anyhow!(error).context("cannot remove the gateway's certificate and key").into())
        }
    }
}

/// Prints the files in a directory that are not the agent's, or are another agent's.
fn print_left_files(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if !directory.exists() {
        return;
    }
    names.sort();
    let content =
        if names.is_empty() { "the empty directory".to_owned() } else { names.join(", ") };
    output::print_note("left", format_args!("{}: {content}", directory.display()));
}

/// Prints the interfaces of sandboxes, which stay and which nothing guards any more.
fn print_open_interfaces(interfaces: &[HostInterface]) {
    if interfaces.is_empty() {
        return;
    }
    let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let names = names.join(", ");
    output::print_note(
        "left",
        format_args!("the interfaces themselves, open from now on: {names}"),
    );
}

/// Prints what stays attached, so that the user does not assume that it is gone.
fn print_remaining(bpffs: &Path, is_default: bool) {
    for (directory, count) in Dataplane::other_agents(bpffs) {
        let directory = directory.display();
        output::print_note(
            "note",
            format_args!(
                "{count} sandboxes or interfaces of another agent stay attached, with pins in {directory}: \
                 clean up with that agent's --config"
            ),
        );
    }
    if is_default {
        output::print_note(
            "note",
            "these are the default places; what an agent with another configuration attached is \
             known only with its --config",
        );
    }
}

/// Removes a directory unless another agent still uses it.
fn remove_if_empty(directory: &Path) {
    let _ = fs::remove_dir(directory);
}

/// Removes the socket that a crashed agent left behind.
fn remove_stale_socket(socket: &Path) {
    if let Err(error) = UnixStream::connect(socket)
        && error.kind() == ErrorKind::ConnectionRefused
    {
        let _ = fs::remove_file(socket);
    }
}
