//! Checks whether an interface exists in a network namespace.

use std::{fs, fs::File, io, os::unix::fs::MetadataExt as _, path::Path, thread};

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};

use crate::{dataplane::HostInterface, policy::ValidationError};

/// The agent's own network namespace.
const OWN_NETNS_PATH: &str = "/proc/self/ns/net";

/// Whether the interface of a sandbox exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceState {
    /// The interface exists, with this index.
    Present(u32),
    /// The namespace exists, but has no such interface.
    NoInterface,
    /// The namespace does not exist, for this reason.
    NoNamespace(String),
    /// The lookup failed for this reason, for example for lack of file descriptors. The interface
    /// may still exist.
    Unknown(String),
}

impl InterfaceState {
    /// Returns the index of the interface.
    ///
    /// # Errors
    /// The interface or its namespace is missing, or the lookup failed. The error names the field
    /// that specifies it.
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

/// Looks up an interface.
#[must_use]
pub(crate) fn probe_interface(interface: &HostInterface) -> InterfaceState {
    let Some(netns) = &interface.netns else { return probe_in_current_namespace(&interface.name) };
    let namespace = match File::open(netns) {
        Ok(namespace) => namespace,
        Err(error) if error.raw_os_error().is_some_and(is_resource_shortage) => {
            return InterfaceState::Unknown(error.to_string());
        }
        Err(error) => return InterfaceState::NoNamespace(error.to_string()),
    };
    // `setns` affects only the calling thread, which ends right after.
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
        // The reason is unknown: glibc may have had no file descriptor for the socket of its query.
        Err(_) => InterfaceState::Unknown("out of file descriptors".to_owned()),
    }
}

/// Returns whether an error is a temporary lack of resources, or an interruption.
fn is_resource_shortage(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::EINTR)
}

/// Identifies a network namespace independently of its path: the device and inode of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId(u64, u64);

/// Returns the ID of the namespace at `netns`, or of the agent's own.
///
/// # Errors
/// The file does not exist.
pub(super) fn namespace_id(netns: Option<&Path>) -> io::Result<NamespaceId> {
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
