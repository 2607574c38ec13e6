//! `cleanup`

use std::{fs, os::unix::net::UnixStream, path::Path};

use clap::Args;

use super::{failure::Failure, lock::Lock, options::Places, output};
use crate::{
    dataplane::{Dataplane, Interface},
    store::Store,
};

/// Detach everything, and remove pins and state
///
/// Takes all policies off, which leaves the sandboxes' interfaces open, and removes pins and state.
/// Stop the agent first, and run this in the same network namespace.
#[derive(Args)]
pub struct Cleanup {
    #[command(flatten)]
    places: Places,
}

impl Cleanup {
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let config = self.places.load()?;
        let lock = Lock::take(&config.state_dir)?;
        let known = Store::open(&config.state_dir)?.load()?.entries;
        let interfaces: Vec<Interface> = known
            .into_iter()
            .map(|entry| Interface { name: entry.spec.interface, netns: entry.spec.netns })
            .collect();
        let detached = Dataplane::cleanup(&config.bpffs, &interfaces)?;
        Store::destroy(&config.state_dir)?;
        remove_empty(&config.bpffs);
        remove_stale(socket);
        lock.remove();
        for id in detached {
            match Interface::of_gates(&id) {
                Some(slot) => output::line(format_args!("interface {} detached", slot.name))?,
                None => output::line(format_args!("{id} detached"))?,
            }
        }
        output::line("clean")
    }
}

/// Removes a directory that nobody else uses.
fn remove_empty(directory: &Path) {
    let _ = fs::remove_dir(directory);
}

/// Removes the socket of an agent that could not do it any more.
fn remove_stale(socket: &Path) {
    if let Err(error) = UnixStream::connect(socket)
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        let _ = fs::remove_file(socket);
    }
}
