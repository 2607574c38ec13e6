//! TCP and UDP servers on every address of a namespace. The kernel replies to ping.

mod tcp_servers;
mod udp_servers;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;

use crate::network::NetworkNamespace;

/// A TCP server that sends first, like SSH.
pub const SSH_PORT: u16 = 22;
/// HTTP. Each response contains the server's address and the client's.
pub const HTTP_PORT: u16 = 80;
/// TCP and UDP echo.
pub const HTTPS_PORT: u16 = 443;
/// TCP and UDP echo.
pub const DNS_PORT: u16 = 53;
/// TCP and UDP echo.
pub const ECHO_PORT: u16 = 7000;
/// A port without a server.
pub const CLOSED_PORT: u16 = 7001;

/// The ports to omit where [`named_internet`](crate::named_internet) serves DNS and the web.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPorts {
    /// Omits nothing.
    All,
    /// Omits DNS, HTTP and HTTPS, but not UDP port 443.
    WithoutDnsAndWeb,
}

/// Servers in a namespace. They end on drop.
pub struct TestServers {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl TestServers {
    /// Starts TCP servers for all addresses of the namespace, and UDP servers on `addresses`.
    pub fn start(namespace: &NetworkNamespace, addresses: &[IpAddr]) -> Result<Self> {
        let _inside = namespace.enter()?;
        Self::start_here(addresses, ServerPorts::All)
    }

    /// Starts the servers in the calling thread's namespace, on these ports.
    pub fn start_here(addresses: &[IpAddr], ports: ServerPorts) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut servers = Self { stopped: Arc::clone(&ended), threads: Vec::new() };
        let (listeners, sockets) = match ports {
            ServerPorts::All => (
                tcp_servers::bind_listeners(&[
                    SSH_PORT, DNS_PORT, HTTP_PORT, HTTPS_PORT, ECHO_PORT,
                ])?,
                udp_servers::bind_sockets(addresses, &[DNS_PORT, HTTPS_PORT, ECHO_PORT])?,
            ),
            ServerPorts::WithoutDnsAndWeb => (
                tcp_servers::bind_listeners(&[SSH_PORT, ECHO_PORT])?,
                udp_servers::bind_sockets(addresses, &[HTTPS_PORT, ECHO_PORT])?,
            ),
        };
        servers.threads.push(thread::spawn({
            let ended = Arc::clone(&ended);
            move || tcp_servers::serve(&listeners, &ended)
        }));
        servers.threads.push(thread::spawn(move || udp_servers::serve(&sockets, &ended)));
        Ok(servers)
    }
}

impl Drop for TestServers {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
