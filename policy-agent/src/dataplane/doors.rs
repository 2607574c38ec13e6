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
    hand_over::{SOCKET_MARK, door},
    name::DOORS,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Interface, Slot, netns::Namespace, pins::Pins, routing, sandboxes::map};

/// Connections that wait to be accepted, per listener; the namespace's `net.core.somaxconn` may
/// allow fewer.
const BACKLOG: i32 = 4096;

/// The listeners that a sandbox's connections come out of. The local address of an accepted
/// connection is where the sandbox wanted to go. Not blocking. A door that is dropped is shut.
#[derive(Debug)]
pub struct Door {
    /// IPv4.
    pub v4: Option<TcpListener>,
    /// IPv6; `None` where the namespace has no IPv6.
    pub v6: Option<TcpListener>,
}

/// The kernel's table of doors, and the namespaces that they are in.
pub struct Doors {
    open: Mutex<Open>,
}

struct Open {
    listeners: SockMap<MapData>,
    namespaces: HashMap<Slot, Namespace>,
}

impl Doors {
    /// Opens the pinned table.
    pub fn open(pins: &Pins) -> Result<Self> {
        let listeners = map(&pins.map(DOORS))?.try_into()?;
        Ok(Self { open: Mutex::new(Open { listeners, namespaces: HashMap::new() }) })
    }

    /// Makes the listeners of a slot, and has its namespace deliver to them.
    pub fn open_door(&self, slot: Slot, interface: &Interface) -> Result<Door> {
        let namespace = Namespace::open(interface.netns.as_deref())?;
        let mut open = self.lock()?;
        match open.put(slot, &namespace, &interface.name) {
            Ok(door) => {
                let before = open.namespaces.insert(slot, namespace);
                before.map_or(Ok(()), |before| open.leave(&before))?;
                Ok(door)
            }
            Err(error) => {
                // What went wrong first is what to tell.
                let _ = open.close(slot).and_then(|()| open.leave(&namespace));
                Err(error)
            }
        }
    }

    /// Takes the listeners of a slot out of the table.
    pub fn close_door(&self, slot: Slot) -> Result<()> {
        self.lock()?.close(slot)
    }

    fn lock(&self) -> Result<MutexGuard<'_, Open>> {
        self.open.lock().map_err(|_| anyhow!("the table of doors is poisoned by a panic"))
    }
}

impl Open {
    /// The rules are looked after at each opening, in case that somebody removed them.
    fn put(&mut self, slot: Slot, namespace: &Namespace, interface: &str) -> Result<Door> {
        let door = namespace.enter(|| Door::within(interface))?;
        routing::establish(namespace, door.v6.is_some())?;
        for (v6, listener) in [(false, &door.v4), (true, &door.v6)] {
            let key = self::door(slot.get(), v6);
            match listener {
                Some(listener) => {
                    self.listeners.set(key, listener, 0).context("cannot open a door")?
                }
                None => self.clear(key)?,
            }
        }
        Ok(door)
    }

    fn close(&mut self, slot: Slot) -> Result<()> {
        self.clear(door(slot.get(), false))?;
        self.clear(door(slot.get(), true))?;
        let namespace = self.namespaces.remove(&slot);
        namespace.map_or(Ok(()), |namespace| self.leave(&namespace))
    }

    /// Empties an element, if there is something in it.
    fn clear(&mut self, key: u32) -> Result<()> {
        match self.listeners.clear_index(&key) {
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
    fn leave(&self, namespace: &Namespace) -> Result<()> {
        if self.namespaces.values().any(|other| other.is(namespace)) {
            return Ok(());
        }
        routing::remove(namespace)
    }
}

impl Door {
    /// A door in the calling thread's network namespace, for a sandbox behind this interface.
    fn within(interface: &str) -> Result<Self> {
        let v4 = listener((Ipv4Addr::LOCALHOST, 0).into()).context("cannot listen")?;
        let v6 = has_v6(interface).then(|| listener((Ipv6Addr::LOCALHOST, 0).into()));
        Ok(Self { v4: Some(v4), v6: v6.transpose().context("cannot listen on IPv6")? })
    }
}

/// A listener for connections to whatever address. It needs none of its own: being transparent, it
/// can be bound even if there is no such address.
///
/// Ports are never shared: the kernel would choose anew among those who do.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_mark(SOCKET_MARK)?;
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
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether the kernel takes IPv6 packets from an interface, and can deliver them.
fn has_v6(interface: &str) -> bool {
    let is_on = |interface: &str| {
        let path = Path::new("/proc/sys/net/ipv6/conf").join(interface).join("disable_ipv6");
        fs::read_to_string(path).is_ok_and(|disabled| disabled.trim() == "0")
    };
    is_on("lo") && is_on(interface)
}

/// Removes the routing rules from the namespaces of these interfaces and from the own one.
pub fn remove_routing(interfaces: &[Interface]) -> Result<()> {
    let paths: HashSet<_> = interfaces.iter().map(|interface| interface.netns.as_deref()).collect();
    for path in paths.into_iter().flatten() {
        // One that is gone has no rules.
        if let Ok(namespace) = Namespace::open(Some(path))
            && namespace.enter(|| Ok(())).is_ok()
        {
            routing::remove(&namespace)?;
        }
    }
    routing::remove(&Namespace::open(None)?)
}
