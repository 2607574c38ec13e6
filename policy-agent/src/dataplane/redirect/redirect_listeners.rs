//! The listeners to which the kernel programs redirect connections for the egress proxy: one per
//! sandbox and family, in the network namespace of the sandbox's interface. Also installs the
//! routing rules that deliver redirected packets locally.
//!
//! The listeners' addresses have no meaning, because the kernel programs find them in the pinned
//! map. The kernel removes a closed listener from the map, so none remains when an agent ends.

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
    maps::{pin_directory::PinDirectory, pinned_maps::open_pinned_map},
    net::netns::NetnsHandle,
    redirect::redirect_routing,
};

/// Backlog of pending connections per listener. The namespace's `net.core.somaxconn` may reduce it.
const LISTEN_BACKLOG: i32 = 4096;

/// The listeners that accept a sandbox's connections. They are non-blocking. The local address of
/// an accepted connection is the sandbox's destination. Dropping this closes the listeners.
#[derive(Debug)]
pub struct RedirectListeners {
    /// IPv4.
    pub v4: Option<TcpListener>,
    /// IPv6. `None` if the namespace does not support it.
    pub v6: Option<TcpListener>,
}

/// The kernel's map of listeners, and their namespaces.
pub(crate) struct RedirectRegistry {
    state: Mutex<RedirectState>,
}

struct RedirectState {
    listener_map: SockMap<MapData>,
    namespaces: HashMap<Slot, NetnsHandle>,
}

impl RedirectRegistry {
    /// Opens the pinned map.
    pub(crate) fn open(pins: &PinDirectory) -> Result<Self> {
        let listeners = open_pinned_map(&pins.map_path(PROXY_LISTENERS))?.try_into()?;
        Ok(Self {
            state: Mutex::new(RedirectState {
                listener_map: listeners,
                namespaces: HashMap::new(),
            }),
        })
    }

    /// Opens the listeners of a slot, and installs the routing in its namespace.
    pub(crate) fn open_listeners(
        &self,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<RedirectListeners> {
        let namespace = NetnsHandle::open(interface.netns.as_deref())?;
        let mut open = self.lock_state()?;
        match open.install_listeners(slot, &namespace, &interface.name) {
            Ok(listeners) => {
                let before = open.namespaces.insert(slot, namespace);
                before.map_or(Ok(()), |before| open.release_namespace(&before))?;
                Ok(listeners)
            }
            Err(error) => {
                // Only the first error is returned.
                let _ =
                    open.remove_listeners(slot).and_then(|()| open.release_namespace(&namespace));
                Err(error)
            }
        }
    }

    /// Removes the listeners of a slot from the map.
    pub(crate) fn close_listeners(&self, slot: Slot) -> Result<()> {
        self.lock_state()?.remove_listeners(slot)
    }

    fn lock_state(&self) -> Result<MutexGuard<'_, RedirectState>> {
        self.state.lock().map_err(|_| anyhow!("the table of listeners is poisoned by a panic"))
    }
}

impl RedirectState {
    /// The routing rules are checked every time, in case they have been removed.
    fn install_listeners(
        &mut self,
        slot: Slot,
        namespace: &NetnsHandle,
        interface: &str,
    ) -> Result<RedirectListeners> {
        let listeners = namespace.run_inside(|| RedirectListeners::bind_for(interface))?;
        redirect_routing::install_redirect(namespace, listeners.v6.is_some())?;
        for (v6, listener) in [(false, &listeners.v4), (true, &listeners.v6)] {
            let key = listener_key(slot.get(), v6);
            match listener {
                Some(listener) => self
                    .listener_map
                    .set(key, listener, 0)
                    .context("cannot add a listener to the map")?,
                None => self.clear_map_key(key)?,
            }
        }
        Ok(listeners)
    }

    fn remove_listeners(&mut self, slot: Slot) -> Result<()> {
        self.clear_map_key(listener_key(slot.get(), false))?;
        self.clear_map_key(listener_key(slot.get(), true))?;
        let namespace = self.namespaces.remove(&slot);
        namespace.map_or(Ok(()), |namespace| self.release_namespace(&namespace))
    }

    /// Clears an element, if it is set.
    fn clear_map_key(&mut self, key: u32) -> Result<()> {
        match self.listener_map.clear_index(&key) {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() != Some(libc::EINVAL) =>
            {
                Err(error).context("cannot remove a listener from the map")
            }
            Err(MapError::SyscallError(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the routing rules of a namespace that has no listeners any more.
    fn release_namespace(&self, namespace: &NetnsHandle) -> Result<()> {
        if self.namespaces.values().any(|other| other.is_same_netns(namespace)) {
            return Ok(());
        }
        redirect_routing::remove_redirect(namespace)
    }
}

impl RedirectListeners {
    /// Opens listeners in the calling thread's network namespace, for a sandbox behind this
    /// interface.
    fn bind_for(interface: &str) -> Result<Self> {
        let v4 = bind_transparent((Ipv4Addr::LOCALHOST, 0).into()).context("cannot listen")?;
        let v6 = accepts_ipv6(interface).then(|| bind_transparent((Ipv6Addr::LOCALHOST, 0).into()));
        Ok(Self { v4: Some(v4), v6: v6.transpose().context("cannot listen on IPv6")? })
    }
}

/// Opens a listener for connections to any address. It is transparent, so it can be bound even if
/// the address does not exist.
///
/// Ports are never shared, because the kernel would then select among the sharing sockets again.
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
    // Accepted connections inherit this. Their local ports are those of their destinations, and
    // without it the host's own servers could not bind to these ports.
    socket.set_reuse_address(true)?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Whether the kernel accepts and can deliver IPv6 packets from an interface.
fn accepts_ipv6(interface: &str) -> bool {
    let is_on = |interface: &str| {
        let path = Path::new("/proc/sys/net/ipv6/conf").join(interface).join("disable_ipv6");
        fs::read_to_string(path).is_ok_and(|disabled| disabled.trim() == "0")
    };
    is_on("lo") && is_on(interface)
}

/// Removes the routing rules from the namespaces of these interfaces and from the agent's own.
pub(crate) fn remove_all_redirects(interfaces: &[HostInterface]) -> Result<()> {
    let paths: HashSet<_> = interfaces.iter().map(|interface| interface.netns.as_deref()).collect();
    for path in paths.into_iter().flatten() {
        // A namespace that no longer exists has no rules.
        if let Ok(namespace) = NetnsHandle::open(Some(path))
            && namespace.run_inside(|| Ok(())).is_ok()
        {
            redirect_routing::remove_redirect(&namespace)?;
        }
    }
    redirect_routing::remove_redirect(&NetnsHandle::open(None)?)
}
