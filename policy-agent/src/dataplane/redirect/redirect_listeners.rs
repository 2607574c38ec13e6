//! The doors through which the kernel hands connections to the egress proxy: a listener per sandbox
//! and family, in the network namespace of the sandbox's interface, and the routing rules that make
//! the kernel deliver locally what is handed over.
//!
//! The listeners' addresses mean nothing: the kernel programs find them in the pinned map. The
//! kernel takes one out of it when it is closed, so an agent that ends leaves no open door.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::Path,
    sync::{Mutex, MutexGuard},
};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{MapData, MapError, SockMap};
use policy_common::{
    bpf_names::PROXY_LISTENERS,
    redirect::{PROXY_SOCKET_MARK, listener_key},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::dataplane::{
    HostInterface, Slot,
    maps::{endpoint_maps::open_pinned_map, pin_directory::PinDirectory},
    net::netns::NetnsHandle,
    redirect::redirect_routing,
};

/// Connections that wait to be accepted, per listener; the namespace's `net.core.somaxconn` may
/// allow fewer.
const LISTEN_BACKLOG: i32 = 4096;

/// The listeners that a sandbox's connections come out of. The local address of an accepted
/// connection is where the sandbox wanted to go. Not blocking. A door that is dropped is shut.
#[derive(Debug)]
pub struct RedirectListeners {
    /// IPv4.
    pub v4: Option<TcpListener>,
    /// IPv6; `None` where the namespace has no IPv6.
    pub v6: Option<TcpListener>,
}

/// The kernel's table of doors, and the namespaces that they are in.
pub(crate) struct RedirectRegistry {
    state: Mutex<RedirectState>,
}

struct RedirectState {
    listener_map: SockMap<MapData>,
    namespaces: HashMap<Slot, NetnsHandle>,
}

impl RedirectRegistry {
    /// Opens the pinned table.
    pub(crate) fn open(pins: &PinDirectory) -> Result<Self> {
        let listeners = open_pinned_map(&pins.map_path(PROXY_LISTENERS))?.try_into()?;
        Ok(Self {
            state: Mutex::new(RedirectState {
                listener_map: listeners,
                namespaces: HashMap::new(),
            }),
        })
    }

    /// Makes the listeners of a slot, and has its namespace deliver to them.
    pub(crate) fn open_listeners(
        &self,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<RedirectListeners> {
        let namespace = NetnsHandle::open(interface.netns.as_deref())?;
        let mut open = self.lock_state()?;
        match open.install_listeners(slot, &namespace, &interface.name) {
            Ok(door) => {
                let before = open.namespaces.insert(slot, namespace);
                before.map_or(Ok(()), |before| open.release_namespace(&before))?;
                Ok(door)
            }
            Err(error) => {
                // What went wrong first is what to tell.
                let _ =
                    open.remove_listeners(slot).and_then(|()| open.release_namespace(&namespace));
                Err(error)
            }
        }
    }

    /// Takes the listeners of a slot out of the table.
    pub(crate) fn close_listeners(&self, slot: Slot) -> Result<()> {
        self.lock_state()?.remove_listeners(slot)
    }

    fn lock_state(&self) -> Result<MutexGuard<'_, RedirectState>> {
        self.state.lock().map_err(|_| anyhow!("the table of doors is poisoned by a panic"))
    }
}

impl RedirectState {
    /// The rules are looked after at each opening, in case that somebody removed them.
    fn install_listeners(
        &mut self,
        slot: Slot,
        namespace: &NetnsHandle,
        interface: &str,
    ) -> Result<RedirectListeners> {
        let door = namespace.run_inside(|| RedirectListeners::bind_for(interface))?;
        redirect_routing::install_redirect(namespace, door.v6.is_some())?;
        for (v6, listener) in [(false, &door.v4), (true, &door.v6)] {
            let key = listener_key(slot.get(), v6);
            match listener {
                Some(listener) => {
                    self.listener_map.set(key, listener, 0).context("cannot open a door")?
                }
                None => self.clear_map_key(key)?,
            }
        }
        Ok(door)
    }

    fn remove_listeners(&mut self, slot: Slot) -> Result<()> {
        self.clear_map_key(listener_key(slot.get(), false))?;
        self.clear_map_key(listener_key(slot.get(), true))?;
        let namespace = self.namespaces.remove(&slot);
        namespace.map_or(Ok(()), |namespace| self.release_namespace(&namespace))
    }

    /// Empties an element, if there is something in it.
    fn clear_map_key(&mut self, key: u32) -> Result<()> {
        match self.listener_map.clear_index(&key) {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() != Some(libc::EINVAL) =>
            {
                Err(error).context("cannot close a door")
            }
            Err(MapError::SyscallError(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the routing rules of a namespace in which there is no door any more.
    fn release_namespace(&self, namespace: &NetnsHandle) -> Result<()> {
        if self.namespaces.values().any(|other| other.is_same_netns(namespace)) {
            return Ok(());
        }
        redirect_routing::remove_redirect(namespace)
    }
}

impl RedirectListeners {
    /// A door in the calling thread's network namespace, for a sandbox behind this interface.
    fn bind_for(interface: &str) -> Result<Self> {
        let v4 = bind_transparent((Ipv4Addr::LOCALHOST, 0).into()).context("cannot listen")?;
        let v6 = accepts_ipv6(interface).then(|| bind_transparent((Ipv6Addr::LOCALHOST, 0).into()));
        Ok(Self { v4: Some(v4), v6: v6.transpose().context("cannot listen on IPv6")? })
    }
}

/// A listener for connections to whatever address. It needs none of its own: being transparent, it
/// can be bound even if there is no such address.
///
/// Ports are never shared: the kernel would choose anew among those who do.
fn bind_transparent(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_mark(PROXY_SOCKET_MARK)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    } else {
        socket.set_ip_transparent_v4(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Connections inherit it. Their local ports are those of their destinations, and the host's own
    // servers could not be started there.
    socket.set_reuse_address(true)?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Whether the kernel takes IPv6 packets from an interface, and can deliver them.
fn accepts_ipv6(interface: &str) -> bool {
    let is_on = |interface: &str| {
        let path = Path::new("/proc/sys/net/ipv6/conf").join(interface).join("disable_ipv6");
        fs::read_to_string(path).is_ok_and(|disabled| disabled.trim() == "0")
    };
    is_on("lo") && is_on(interface)
}

/// Removes the routing rules from the namespaces of these interfaces and from the own one.
pub(crate) fn remove_all_redirects(interfaces: &[HostInterface]) -> Result<()> {
    let paths: HashSet<_> = interfaces.iter().map(|interface| interface.netns.as_deref()).collect();
    for path in paths.into_iter().flatten() {
        // One that is gone has no rules.
        if let Ok(namespace) = NetnsHandle::open(Some(path))
            && namespace.run_inside(|| Ok(())).is_ok()
        {
            redirect_routing::remove_redirect(&namespace)?;
        }
    }
    redirect_routing::remove_redirect(&NetnsHandle::open(None)?)
}
