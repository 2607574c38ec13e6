//! What answers: TCP and UDP servers on every address of a namespace. Ping the kernel answers.

mod tcp;
mod udp;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;

use crate::world::Namespace;

/// TCP that speaks first, as SSH does.
pub const SSH: u16 = 22;
/// HTTP: answers every request with its own address and the client's.
pub const HTTP: u16 = 80;
/// TCP and UDP that send back what they get.
pub const HTTPS: u16 = 443;
/// TCP and UDP that send back what they get.
pub const DNS: u16 = 53;
/// TCP and UDP that send back what they get.
pub const ECHO: u16 = 7000;
/// No one listens here.
pub const CLOSED: u16 = 7001;

/// What is left out where [`names`](crate::names) serves DNS and the web.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Nothing.
    All,
    /// DNS, HTTP and HTTPS; but not UDP port 443.
    BesideNames,
}

/// Servers in a namespace; they end on drop.
pub struct Servers {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Starts TCP servers for all addresses of the namespace, and UDP servers on `addresses`.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr]) -> Result<Self> {
        let _inside = namespace.enter()?;
        Self::start_here(addresses, Ports::All)
    }

    /// The same in the namespace that the thread is in, on these ports.
    pub fn start_here(addresses: &[IpAddr], ports: Ports) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut servers = Self { ended: Arc::clone(&ended), threads: Vec::new() };
        let (listeners, sockets) = match ports {
            Ports::All => (
                tcp::listeners(&[SSH, DNS, HTTP, HTTPS, ECHO])?,
                udp::sockets(addresses, &[DNS, HTTPS, ECHO])?,
            ),
            Ports::BesideNames => {
                (tcp::listeners(&[SSH, ECHO])?, udp::sockets(addresses, &[HTTPS, ECHO])?)
            }
        };
        servers.threads.push(thread::spawn({
            let ended = Arc::clone(&ended);
            move || tcp::serve(&listeners, &ended)
        }));
        servers.threads.push(thread::spawn(move || udp::serve(&sockets, &ended)));
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
