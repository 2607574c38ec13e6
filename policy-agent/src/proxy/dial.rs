//! Makes the connection that was let out: resolve, hold every address against the floor, connect.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::Poll,
};

use policy_common::reason::Reason;
use tokio::{net::TcpStream, time::timeout};

use super::{
    means::Means,
    network::{Later, Place},
    tunnel,
    upstream::Upstream,
    verdict::{End, Grounds, packet},
};
use crate::{
    agent::Rules,
    policy::{Host, Name, explain_packet},
};

/// Addresses of one name that are looked at. Each takes a file descriptor while nobody answers.
const MOST: usize = 6;

/// Where a connection is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name that it was let out for, or its address.
    pub host: Host,
    /// The port that it was to go to.
    pub port: u16,
}

impl Target {
    /// Of a connection that asks for a name, or for none.
    pub fn new(destination: SocketAddr, name: Option<&str>) -> Self {
        let name = name.and_then(|name| Name::parse(name).ok());
        let address = || Host::Address(destination.ip().to_canonical());
        Self { host: name.map_or_else(address, Host::Name), port: destination.port() }
    }
}

/// Connects to the target, through the tunnel if the rules have one, and never past it.
pub async fn dial(means: &Means, rules: &Rules, target: &Target) -> Result<Upstream, End> {
    if let Some(tunnel) = rules.policy.tunnel() {
        return tunnel::through(means, tunnel, target).await;
    }
    let refusal = |address| refusal(means, rules, SocketAddr::new(address, target.port));
    let addresses = candidates(means, &target.host, refusal).await?;
    Ok(Upstream::plain(connect(means, &addresses, target.port).await?))
}

/// Why line 5 keeps an address closed, if it does.
fn refusal(means: &Means, rules: &Rules, address: SocketAddr) -> Option<Grounds> {
    let floor = &means.law.floor;
    if floor.admits(address.ip()) {
        return None;
    }
    Some(explain_packet(&rules.policy, floor, &packet(address)).into())
}

/// The addresses of a host that may be dialled. Of those that may not, the first is the reason when
/// there are no others.
pub async fn candidates(
    means: &Means,
    host: &Host,
    refusal: impl Fn(IpAddr) -> Option<Grounds>,
) -> Result<Vec<IpAddr>, End> {
    let found = match host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let found = timeout(means.patience.resolve, means.network.resolve(name)).await;
            found.unwrap_or_default()
        }
    };
    let mut good = Vec::with_capacity(found.len());
    let mut bad: Option<Grounds> = None;
    let found: Vec<IpAddr> = found.iter().map(IpAddr::to_canonical).collect();
    for address in interleaved(&found).into_iter().take(MOST) {
        let refused = match refusal(address) {
            None => {
                let closed = timeout(means.patience.resolve, closed(means, address)).await;
                closed.unwrap_or(Some(Reason::Unreachable)).map(Grounds::from)
            }
            refused => refused,
        };
        match refused {
            None => good.push(address),
            refused => bad = bad.or(refused),
        }
    }
    match bad {
        _ if !good.is_empty() => Ok(good),
        Some(bad) => Err(bad.into()),
        None => Err(Reason::NameUnresolved.into()),
    }
}

/// Why an address that the floor admits is closed all the same.
async fn closed(means: &Means, address: IpAddr) -> Option<Reason> {
    if address.is_unspecified() {
        return Some(Reason::HostAddress); // Linux connects it to the host itself
    }
    if address.is_multicast() {
        return Some(Reason::Unreachable);
    }
    match means.network.place(address).await {
        Place::Elsewhere => None,
        Place::Host if means.law.floor.allows(address) => None,
        Place::Host => Some(Reason::HostAddress),
        Place::Nowhere => Some(Reason::Unreachable),
    }
}

/// One family after the other in turn, so that one that does not work costs one attempt (RFC 8305,
/// 4).
fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let of = |v6: bool| addresses.iter().filter(move |address| address.is_ipv6() == v6);
    let (mut v6, mut v4) = (of(true), of(false));
    let mut mixed = Vec::with_capacity(addresses.len());
    while mixed.len() < addresses.len() {
        mixed.extend(v6.next());
        mixed.extend(v4.next());
    }
    mixed
}

/// The first connection that one of the addresses accepts.
pub async fn connect(means: &Means, addresses: &[IpAddr], port: u16) -> Result<TcpStream, End> {
    let race = race(means, addresses, port);
    match timeout(means.patience.connect, race).await {
        Ok(Some(stream)) => Ok(stream),
        Ok(None) | Err(_) => Err(Reason::Unreachable.into()),
    }
}

async fn race(means: &Means, addresses: &[IpAddr], port: u16) -> Option<TcpStream> {
    let mut attempts = Vec::new();
    for address in addresses {
        attempts.push(means.network.connect(SocketAddr::new(*address, port)));
        let won = timeout(means.patience.stagger, first(&mut attempts)).await;
        if let Ok(Some(stream)) = won {
            return Some(stream);
        }
    }
    first(&mut attempts).await
}

/// The first attempt that succeeds; `None` when all have failed.
fn first(
    attempts: &mut Vec<Later<'_, io::Result<TcpStream>>>,
) -> impl Future<Output = Option<TcpStream>> {
    std::future::poll_fn(move |cx| {
        let mut place = 0;
        while place < attempts.len() {
            match Pin::new(&mut attempts[place]).poll(cx) {
                Poll::Ready(Ok(stream)) => return Poll::Ready(Some(stream)),
                Poll::Ready(Err(_)) => _ = attempts.swap_remove(place),
                Poll::Pending => place += 1,
            }
        }
        if attempts.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    })
}
