//! A named network namespace that threads and child processes can enter. It is deleted on drop.

use std::{
    fs::{self, File},
    io,
    marker::PhantomData,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{self, Command},
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use super::{command, root_check, unique_names};

/// A named network namespace (`/run/netns/<name>`) whose loopback interface is up.
pub struct NetworkNamespace {
    name: String,
    file: Option<File>,
}

impl NetworkNamespace {
    /// Creates a namespace for the named role, for example `host`.
    pub fn create(role: &str) -> Result<Self> {
        root_check::require_root()?;
        let name = unique_names::unique_name(role);
        command::run(Command::new("ip").args(["netns", "add", &name]))?;
        let mut namespace = Self { name, file: None };
        let path = namespace.path();
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        namespace.file = Some(file);
        namespace.apply_sysctls()?;
        Ok(namespace)
    }

    /// Takes over a namespace that a script has made.
    pub fn adopt(name: &str) -> Result<Self> {
        let mut namespace = Self { name: name.to_owned(), file: None };
        let path = namespace.path();
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        namespace.file = Some(file);
        Ok(namespace)
    }

    /// Settings that later interfaces inherit: addresses are usable at once, the network stack does
    /// not filter spoofed sources (the policy must), and root may use ping sockets.
    fn apply_sysctls(&self) -> Result<()> {
        for each in ["all", "default"] {
            self.sysctl(&format!("ipv4/conf/{each}/rp_filter"), "0")?;
            self.sysctl(&format!("ipv6/conf/{each}/accept_dad"), "0")?;
            self.sysctl(&format!("ipv6/conf/{each}/accept_ra"), "0")?;
        }
        self.sysctl("ipv4/ping_group_range", "0 0")?;
        self.ip_batch("link set lo up")
    }

    /// The name that `ip netns` shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file of the namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs lines of `ip` commands inside.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        command::ip_batch(Some(&self.name), lines)
    }

    /// Sets `/proc/sys/net/<key>` inside.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        let _inside = self.enter()?;
        fs::write(&path, value).with_context(|| format!("writing {value:?} to {path}"))
    }

    /// Moves the calling thread into the namespace until the guard is dropped. Sockets that it
    /// opens stay in the namespace.
    pub fn enter(&self) -> Result<NamespaceGuard> {
        let home = File::open("/proc/thread-self/ns/net").context("opening this thread's netns")?;
        setns(self.open_file()?, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering the network namespace {}", self.name))?;
        Ok(NamespaceGuard { previous: home, _not_send: PhantomData })
    }

    /// A command that runs inside. Unlike `ip netns exec`, it leaves mounts unchanged, so the
    /// program sees bpffs.
    pub fn command(&self, program: &str) -> Result<Command> {
        let file = self.open_file()?.try_clone().context("duplicating a namespace's descriptor")?;
        let mut command = Command::new(program);
        let enter = move || match setns(&file, CloneFlags::CLONE_NEWNET) {
            Ok(()) => Ok(()),
            Err(errno) => Err(io::Error::from_raw_os_error(errno as i32)),
        };
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it
        // owns; it neither allocates nor locks.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }

    /// The index of an interface inside.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        let _inside = self.enter()?;
        nix::net::if_::if_nametoindex(interface)
            .with_context(|| format!("looking for interface {interface} in {}", self.name))
    }

    /// The MAC address of an interface inside.
    pub fn interface_mac(&self, interface: &str) -> Result<[u8; 6]> {
        let mut ip = Command::new("ip");
        let text = command::run(ip.args(["-n", &self.name, "-o", "link", "show", interface]))?;
        let word = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        let bytes = word.into_iter().flat_map(|word| word.split(':'));
        let bytes: Vec<u8> = bytes.filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        bytes.try_into().ok().with_context(|| format!("no MAC address in {text:?}"))
    }

    /// The command that a user types to enter the namespace.
    pub fn enter_command(&self) -> String {
        format!("nsenter --net={}", self.path().display())
    }

    fn open_file(&self) -> Result<&File> {
        self.file.as_ref().context("the namespace is not open")
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // A script that is tested may have deleted it.
        if !self.path().exists() {
            return;
        }
        let deleted = command::run(Command::new("ip").args(["netns", "del", &self.name]));
        if let Err(error) = deleted {
            eprintln!("a network namespace is left behind: {error:#}");
        }
    }
}

/// While it exists, the calling thread is inside a namespace. On drop the thread returns to its
/// previous one.
#[must_use = "the thread leaves the namespace when this is dropped"]
pub struct NamespaceGuard {
    previous: File,
    /// The guard belongs to the thread that entered.
    _not_send: PhantomData<*const ()>,
}

impl Drop for NamespaceGuard {
    fn drop(&mut self) {
        if let Err(errno) = setns(&self.previous, CloneFlags::CLONE_NEWNET) {
            // The thread's next test would run in the wrong network.
            eprintln!("cannot leave a network namespace: {errno}");
            process::abort();
        }
    }
}
