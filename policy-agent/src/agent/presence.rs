//! Whether an interface is there, in whatever network namespace.

use std::{fs, fs::File, io, os::unix::fs::MetadataExt as _, path::Path, thread};

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};

use crate::{dataplane::Interface, policy::Invalid};

/// The agent's own network namespace.
const OWN: &str = "/proc/self/ns/net";

/// What there is where a sandbox says that its interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The interface, with this index.
    Here(u32),
    /// The namespace, without such an interface.
    NoInterface,
    /// No such namespace, and why.
    NoNamespace(String),
    /// It cannot be told, and why: the agent lacks what it takes to look, file descriptors for
    /// instance. No reason to believe that anything is gone.
    Unknown(String),
}

impl Presence {
    /// The interface's index.
    ///
    /// # Errors
    /// What is missing, named by the field that says where it should be.
    pub fn index(&self, interface: &Interface) -> Result<u32, Invalid> {
        match self {
            Self::Here(index) => Ok(*index),
            Self::NoInterface => Err(Invalid::entry(
                "interface",
                &interface.name,
                "there is no such interface in the sandbox's network namespace; create it first",
            )),
            Self::NoNamespace(problem) => {
                let path = interface.netns.as_deref().unwrap_or(Path::new(OWN));
                let path = path.display().to_string();
                Err(Invalid::entry("netns", path, format!("is no network namespace: {problem}")))
            }
            Self::Unknown(problem) => {
                let problem = format!("cannot be looked for: {problem}");
                Err(Invalid::entry("interface", &interface.name, problem))
            }
        }
    }
}

/// Looks for an interface.
#[must_use]
pub fn of(interface: &Interface) -> Presence {
    let Some(netns) = &interface.netns else { return look(&interface.name) };
    let namespace = match File::open(netns) {
        Ok(namespace) => namespace,
        Err(error) if error.raw_os_error().is_some_and(is_want) => {
            return Presence::Unknown(error.to_string());
        }
        Err(error) => return Presence::NoNamespace(error.to_string()),
    };
    // `setns` changes the calling thread only, which ends right after.
    let found = thread::scope(|scope| {
        let thread = scope.spawn(|| match setns(&namespace, CloneFlags::CLONE_NEWNET) {
            Ok(()) => look(&interface.name),
            Err(error) if is_want(error as i32) => Presence::Unknown(error.desc().to_owned()),
            Err(error) => Presence::NoNamespace(error.desc().to_owned()),
        });
        thread.join()
    });
    found.unwrap_or_else(|_| Presence::Unknown("the thread inside it failed".to_owned()))
}

fn look(name: &str) -> Presence {
    match if_nametoindex(name) {
        Ok(index) => Presence::Here(index),
        Err(Errno::ENODEV) => Presence::NoInterface,
        // glibc does not tell which: it may have had no descriptor for the socket that it asks with.
        Err(_) => Presence::Unknown("out of file descriptors".to_owned()),
    }
}

/// Whether an error is about what the process or the machine lacks at the moment.
fn is_want(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::EINTR)
}

/// A network namespace, however its path is written: the device and inode of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(u64, u64);

/// The namespace that `netns` names, or the agent's own.
///
/// # Errors
/// There is no such file.
pub fn namespace(netns: Option<&Path>) -> io::Result<Namespace> {
    let file = fs::metadata(netns.unwrap_or(Path::new(OWN)))?;
    Ok(Namespace(file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, netns: Option<&str>) -> Presence {
        of(&Interface { name: name.to_owned(), netns: netns.map(Into::into) })
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(matches!(at("lo", None), Presence::Here(_)));
        assert_eq!(at("nosuch0", None), Presence::NoInterface);
        assert!(matches!(at("lo", Some("/nonexistent")), Presence::NoNamespace(_)));
    }

    #[test]
    fn one_namespace_has_many_paths() {
        let own = namespace(None).expect("the own namespace");
        let path = format!("/proc/{}/ns/net", std::process::id());
        assert_eq!(namespace(Some(Path::new(&path))).expect("the same"), own);
    }
}
