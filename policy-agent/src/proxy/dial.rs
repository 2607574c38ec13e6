//! Makes the connection that was let out: resolve, hold every address against the floor, connect.

use std::net::{IpAddr, SocketAddr};

use policy_common::reason::Reason;
use tokio::{net::TcpStream, time::timeout};

use super::{
    means::Means,
    network::Place,
    tunnel,
    upstream::Upstream,
    verdict::{End, Grounds, packet},
};
use crate::{
    agent::Rules,
    net::race::{Way, interleaved, race},
    policy::{Host, Name, explain_packet},
};

/// Addresses of one name that are looked at. Each takes a file descriptor while nobody answers.
pub const MOST: usize = 6;

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
        let name = name.and_then(|name| Name::asked(name).ok());
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
    let addresses = candidates(means, target, refusal).await?;
    let addresses = elsewhere(means, rules, addresses).await?;
    Ok(Upstream::plain(connect(means, &addresses, target.port).await?))
}

/// Leaves out what is the host's own where the sandbox is. In another namespace than the agent's it
/// looks like any other address from here; what looks like the host's own is settled already.
async fn elsewhere(
    means: &Means,
    rules: &Rules,
    addresses: Vec<IpAddr>,
) -> Result<Vec<IpAddr>, End> {
    let mut good = Vec::with_capacity(addresses.len());
    for address in addresses {
        let denied = rules.floor.denies_as_host(address);
        if !denied || means.network.place(address).await == Place::Host {
            good.push(address);
        }
    }
    if good.is_empty() { Err(Reason::HostAddress.into()) } else { Ok(good) }
}

/// Why line 5 keeps an address closed, if it does.
fn refusal(means: &Means, rules: &Rules, address: SocketAddr) -> Option<Grounds> {
    let floor = &means.law.floor;
    if floor.admits(address.ip()) {
        return None;
    }
    Some(explain_packet(&rules.policy, floor, &packet(address)).into())
}

/// The addresses of a target that may be dialled. Of those that may not, the first is the reason when
/// there are no others.
pub async fn candidates(
    means: &Means,
    target: &Target,
    refusal: impl Fn(IpAddr) -> Option<Grounds>,
) -> Result<Vec<IpAddr>, End> {
    let found = match &target.host {
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
                let closed = closed(means, address, target.port);
                let closed = timeout(means.patience.resolve, closed).await;
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
pub async fn closed(means: &Means, address: IpAddr, port: u16) -> Option<Reason> {
    if address.is_unspecified() {
        return Some(Reason::HostAddress); // Linux connects it to the host itself
    }
    if address.is_multicast() {
        return Some(Reason::Unreachable);
    }
    match means.network.place(address).await {
        Place::Elsewhere => None,
        Place::Host if means.law.floor.allows(address) || means.serves(address, port) => None,
        Place::Host => Some(Reason::HostAddress),
        Place::Nowhere => Some(Reason::Unreachable),
    }
}

/// The first connection that one of the addresses accepts.
pub async fn connect(means: &Means, addresses: &[IpAddr], port: u16) -> Result<TcpStream, End> {
    let mut ways: Vec<Way<'_, TcpStream>> = Vec::with_capacity(addresses.len());
    for address in addresses {
        let to = SocketAddr::new(*address, port);
        ways.push(Box::pin(async move { means.network.connect(to).await }));
    }
    match timeout(means.patience.connect, race(ways, means.patience.stagger, None)).await {
        Ok(Ok((_, stream))) => Ok(stream),
        Ok(Err(_)) | Err(_) => Err(Reason::Unreachable.into()),
    }
}
