//! `cleanup`

use std::{fs, io::ErrorKind, os::unix::net::UnixStream, path::Path};

use anyhow::anyhow;
use clap::Args;

use super::{failure::Failure, lock::Lock, options::Places, output};
use crate::{
    dataplane::{Dataplane, Interface},
    store::Store,
};

/// Detach everything, and remove pins and state
///
/// Takes all policies off, which leaves the sandboxes' interfaces open, and removes pins, state and the
/// certificate that the gateway signed itself. Stop the agent first, and run this in the same network
/// namespace, with the agent's --config: sandboxes of other state directories stay attached.
#[derive(Args)]
pub struct Cleanup {
    #[command(flatten)]
    places: Places,
}

impl Cleanup {
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let is_default = self.places.are_default();
        let config = self.places.load()?;
        let lock = Lock::take(&config.state_dir)?;
        let known = Store::open(&config.state_dir)?.load()?.entries;
        let forgotten = known.len();
        let interfaces: Vec<Interface> = known
            .into_iter()
            .map(|entry| Interface { name: entry.spec.interface, netns: entry.spec.netns })
            .collect();
        let detached = Dataplane::cleanup(&config.bpffs, &interfaces)?;
        Store::destroy(&config.state_dir)?;
        let certificate = remove_certificate(&config.state_dir)?;
        remove_empty(&config.bpffs);
        remove_stale(socket);
        lock.remove();
        for id in detached {
            match Interface::of_gates(&id) {
                Some(slot) => output::line(format_args!("interface {} detached", slot.name))?,
                None => output::line(format_args!("{id} detached"))?,
            }
        }
        let (state, pins) = (config.state_dir.display(), config.bpffs.display());
        output::line(format_args!("{state}: {forgotten} sandboxes forgotten{certificate}"))?;
        output::line(format_args!("{pins}: pins removed"))?;
        output::line("clean")?;
        say_what_stays(&config.bpffs, is_default);
        Ok(())
    }
}

/// Removes the certificate and key that the gateway made for itself.
fn remove_certificate(state_dir: &Path) -> Result<&'static str, Failure> {
    match fs::remove_dir_all(state_dir.join("gateway")) {
        Ok(()) => Ok(", the gateway's self-signed certificate and key removed"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(""),
        Err(error) => {
            Err(anyhow!(error).context("cannot remove the gateway's certificate and key").into())
        }
    }
}

/// What somebody who cleans up may take for gone.
fn say_what_stays(bpffs: &Path, is_default: bool) {
    for (place, count) in Dataplane::others(bpffs) {
        let place = place.display();
        output::note(
            "note",
            format_args!(
                "{count} sandboxes or interfaces of another agent stay attached, with pins in {place}: \
                 clean up with that agent's --config"
            ),
        );
    }
    if is_default {
        output::note(
            "note",
            "these are the default places; what an agent with another configuration attached is \
             known only with its --config",
        );
    }
}

/// Removes a directory that nobody else uses.
fn remove_empty(directory: &Path) {
    let _ = fs::remove_dir(directory);
}

/// Removes the socket of an agent that could not do it any more.
fn remove_stale(socket: &Path) {
    if let Err(error) = UnixStream::connect(socket)
        && error.kind() == ErrorKind::ConnectionRefused
    {
        let _ = fs::remove_file(socket);
    }
}
