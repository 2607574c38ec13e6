//! Whether an interface is there, in whatever network namespace.

use std::{fs, fs::File, io, os::unix::fs::MetadataExt as _, path::Path, thread};

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};

use crate::{dataplane::HostInterface, policy::ValidationError};

/// The agent's own network namespace.
const OWN_NETNS_PATH: &str = "/proc/self/ns/net";

/// What there is where a sandbox says that its interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceState {
    /// The interface, with this index.
    Present(u32),
    /// The namespace, without such an interface.
    NoInterface,
    /// No such namespace, and why.
    NoNamespace(String),
    /// It cannot be told, and why: the agent lacks what it takes to look, file descriptors for
    /// instance. No reason to believe that anything is gone.
    Unknown(String),
}

impl InterfaceState {
    /// The interface's index.
    ///
    /// # Errors
    /// What is missing, named by the field that says where it should be.
    pub fn require_index(&self, interface: &HostInterface) -> Result<u32, ValidationError> {
        match self {
            Self::Present(ifindex) => Ok(*ifindex),
            Self::NoInterface => Err(ValidationError::about_entry(
                "interface",
                &interface.name,
                "there is no such interface in the sandbox's network namespace; create it first",
            )),
            Self::NoNamespace(problem) => {
                let path = interface.netns.as_deref().unwrap_or(Path::new(OWN_NETNS_PATH));
                let path = path.display().to_string();
                Err(ValidationError::about_entry(
                    "netns",
                    path,
                    format!("is no network namespace: {problem}"),
                ))
            }
            Self::Unknown(problem) => {
                let problem = format!("cannot be looked for: {problem}");
                Err(ValidationError::about_entry("interface", &interface.name, problem))
            }
        }
    }
}

/// Looks for an interface.
#[must_use]
pub fn probe_interface(interface: &HostInterface) -> InterfaceState {
    let Some(netns) = &interface.netns else { return probe_in_current_namespace(&interface.name) };
    let namespace = match File::open(netns) {
        Ok(namespace) => namespace,
        Err(error) if error.raw_os_error().is_some_and(is_resource_shortage) => {
            return InterfaceState::Unknown(error.to_string());
        }
        Err(error) => return InterfaceState::NoNamespace(error.to_string()),
    };
    // `setns` changes the calling thread only, which ends right after.
    let found = thread::scope(|scope| {
        let thread = scope.spawn(|| match setns(&namespace, CloneFlags::CLONE_NEWNET) {
            Ok(()) => probe_in_current_namespace(&interface.name),
            Err(error) if is_resource_shortage(error as i32) => {
                InterfaceState::Unknown(error.desc().to_owned())
            }
            Err(error) => InterfaceState::NoNamespace(error.desc().to_owned()),
        });
        thread.join()
    });
    found.unwrap_or_else(|_| InterfaceState::Unknown("the thread inside it failed".to_owned()))
}

fn probe_in_current_namespace(name: &str) -> InterfaceState {
    match if_nametoindex(name) {
        Ok(ifindex) => InterfaceState::Present(ifindex),
        Err(Errno::ENODEV) => InterfaceState::NoInterface,
        // glibc does not tell which: it may have had no descriptor for the socket that it asks with.
        Err(_) => InterfaceState::Unknown("out of file descriptors".to_owned()),
    }
}

/// Whether an error is about what the process or the machine lacks at the moment.
fn is_resource_shortage(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::EINTR)
}

/// A network namespace, however its path is written: the device and inode of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId(u64, u64);

/// The namespace that `netns` names, or the agent's own.
///
/// # Errors
/// There is no such file.
pub fn namespace_id(netns: Option<&Path>) -> io::Result<NamespaceId> {
    let file = fs::metadata(netns.unwrap_or(Path::new(OWN_NETNS_PATH)))?;
    Ok(NamespaceId(file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_of(name: &str, netns: Option<&str>) -> InterfaceState {
        probe_interface(&HostInterface { name: name.to_owned(), netns: netns.map(Into::into) })
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(matches!(state_of("lo", None), InterfaceState::Present(_)));
        assert_eq!(state_of("nosuch0", None), InterfaceState::NoInterface);
        assert!(matches!(state_of("lo", Some("/nonexistent")), InterfaceState::NoNamespace(_)));
    }

    #[test]
    fn one_namespace_has_many_paths() {
        let own_id = namespace_id(None).expect("the own namespace");
        let path = format!("/proc/{}/ns/net", std::process::id());
        assert_eq!(namespace_id(Some(Path::new(&path))).expect("the same"), own_id);
    }
}
