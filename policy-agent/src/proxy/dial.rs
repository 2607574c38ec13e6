//! Connects to the upstream of an allowed connection: resolves the name, checks every address
//! against the floor, and connects.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use policy_common::reason::Reason;
use tokio::{net::TcpStream, time::timeout};

use super::{
    context::ProxyContext,
    decision::{ConnectionDecision, ConnectionEnd, first_packet},
    host_network::AddressLocality,
    lookup_limiter::LookupLimiter,
    sandbox_proxy::SandboxProxy,
    socks5,
    upstream::UpstreamConnection,
};
use crate::{
    agent::ActivePolicy,
    net::happy_eyeballs::{ConnectAttempt, interleave_families, race_attempts},
    policy::{DomainName, DomainOrIp, RequestedName, evaluate_packet},
};

/// Maximum number of addresses to try per name. Each holds a file descriptor while it does not
/// answer.
const MAX_ADDRESSES: usize = 6;

/// The target of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DialTarget {
    /// The allowed name, or the address.
    pub host: DomainOrIp,
    /// The original destination port.
    pub port: u16,
}

impl DialTarget {
    /// The target of a connection that requests this name, or its destination address without one.
    pub(super) fn new(destination: SocketAddr, name: Option<&RequestedName>) -> Self {
        let host = match name.and_then(RequestedName::domain) {
            Some(domain) => DomainOrIp::Domain(domain.clone()),
            None => DomainOrIp::Address(destination.ip().to_canonical()),
        };
        Self { host, port: destination.port() }
    }
}

/// Connects to the target, and counts how long that takes.
pub(super) async fn dial(
    sandbox_proxy: &SandboxProxy,
    active_policy: &ActivePolicy,
    target: &DialTarget,
) -> Result<UpstreamConnection, ConnectionEnd> {
    let start = Instant::now();
    let dialed = dial_target(sandbox_proxy, active_policy, target).await;
    sandbox_proxy.context.metrics.record_dial(start.elapsed(), dialed.is_ok());
    dialed
}

/// If the policy has an egress proxy, the connection goes through it and never around it.
async fn dial_target(
    sandbox_proxy: &SandboxProxy,
    active_policy: &ActivePolicy,
    target: &DialTarget,
) -> Result<UpstreamConnection, ConnectionEnd> {
    let SandboxProxy { context, lookup_limiter, .. } = sandbox_proxy;
    if let Some(egress_proxy) = active_policy.policy.egress_proxy() {
        return socks5::connect_through(context, lookup_limiter, egress_proxy, target).await;
    }
    let addresses = check_target(sandbox_proxy, active_policy, target).await?;
    Ok(UpstreamConnection::plain(connect_first(context, &addresses, target.port).await?))
}

/// The addresses at which a target may be dialed, without an egress proxy.
///
/// # Errors
/// There are none.
pub(super) async fn check_target(
    sandbox_proxy: &SandboxProxy,
    active_policy: &ActivePolicy,
    target: &DialTarget,
) -> Result<Vec<IpAddr>, ConnectionEnd> {
    let SandboxProxy { context, lookup_limiter, .. } = sandbox_proxy;
    let denial =
        |address| floor_denial(context, active_policy, SocketAddr::new(address, target.port));
    let addresses = candidate_addresses(context, lookup_limiter, target, denial).await?;
    exclude_host_addresses(context, active_policy, addresses).await
}

/// Removes addresses that belong to the host in the sandbox's network namespace. If the agent runs
/// in another namespace, they look like any other address from here. Addresses that are local here
/// were checked before.
async fn exclude_host_addresses(
    context: &ProxyContext,
    active_policy: &ActivePolicy,
    addresses: Vec<IpAddr>,
) -> Result<Vec<IpAddr>, ConnectionEnd> {
    let mut dialable = Vec::with_capacity(addresses.len());
    for address in addresses {
        let denied = active_policy.floor.is_denied_host_address(address);
        if !denied || context.network.locality(address).await == AddressLocality::Local {
            dialable.push(address);
        }
    }
    if dialable.is_empty() { Err(Reason::HostAddress.into()) } else { Ok(dialable) }
}

/// Why line 5 denies an address, if it does.
fn floor_denial(
    context: &ProxyContext,
    active_policy: &ActivePolicy,
    address: SocketAddr,
) -> Option<ConnectionDecision> {
    let platform_policy = context.platform_policy.get();
    let floor = &platform_policy.floor;
    if floor.admits(address.ip()) {
        return None;
    }
    Some(evaluate_packet(&active_policy.policy, floor, &first_packet(address)).into())
}

/// The addresses of a target that may be dialed. If there are none, the error is the reason for the
/// first denied address.
pub(super) async fn candidate_addresses(
    context: &ProxyContext,
    lookup_limiter: &LookupLimiter,
    target: &DialTarget,
    denial: impl Fn(IpAddr) -> Option<ConnectionDecision>,
) -> Result<Vec<IpAddr>, ConnectionEnd> {
    let addresses = match &target.host {
        DomainOrIp::Address(address) => vec![address.to_canonical()],
        DomainOrIp::Domain(name) => resolve_in_dial_order(context, lookup_limiter, name).await,
    };
    let mut dialable = Vec::with_capacity(addresses.len());
    let mut denied: Option<ConnectionDecision> = None;
    for address in addresses {
        let refused = match denial(address) {
            None => undialable_reason(context, address, target.port).await.map(Into::into),
            refused => refused,
        };
        match refused {
            None => dialable.push(address),
            refused => denied = denied.or(refused),
        }
    }
    match denied {
        _ if !dialable.is_empty() => Ok(dialable),
        Some(denied) => Err(denied.into()),
        None => Err(Reason::NameUnresolved.into()),
    }
}

/// The addresses of a name that are tried, in this order. Empty if it has none or does not resolve in
/// time.
pub(super) async fn resolve_in_dial_order(
    context: &ProxyContext,
    lookup_limiter: &LookupLimiter,
    name: &DomainName,
) -> Vec<IpAddr> {
    let resolving = context.network.resolve(name, lookup_limiter);
    let resolved = timeout(context.timeouts.resolve, resolving).await;
    let resolved: Vec<IpAddr> =
        resolved.unwrap_or_default().iter().map(IpAddr::to_canonical).collect();
    interleave_families(&resolved).into_iter().take(MAX_ADDRESSES).collect()
}

/// Why an address that the floor admits must not be dialed, if so.
pub(super) async fn undialable_reason(
    context: &ProxyContext,
    address: IpAddr,
    port: u16,
) -> Option<Reason> {
    let checked = timeout(context.timeouts.resolve, check_dialable(context, address, port)).await;
    checked.unwrap_or(Some(Reason::Unreachable))
}

async fn check_dialable(context: &ProxyContext, address: IpAddr, port: u16) -> Option<Reason> {
    if address.is_unspecified() {
        return Some(Reason::HostAddress); // Linux connects it to the host itself
    }
    if address.is_multicast() {
        return Some(Reason::Unreachable);
    }
    match context.network.locality(address).await {
        AddressLocality::Remote => None,
        AddressLocality::Local
            if context.platform_policy.get().floor.is_platform_allowed(address)
                || context.is_gateway_address(address, port) =>
        {
            None
        }
        AddressLocality::Local => Some(Reason::HostAddress),
        AddressLocality::Unroutable => Some(Reason::Unreachable),
    }
}

/// Connects to the first address that accepts the connection.
pub(super) async fn connect_first(
    context: &ProxyContext,
    addresses: &[IpAddr],
    port: u16,
) -> Result<TcpStream, ConnectionEnd> {
    let mut attempts: Vec<ConnectAttempt<'_, TcpStream>> = Vec::with_capacity(addresses.len());
    for address in addresses {
        let destination = SocketAddr::new(*address, port);
        attempts.push(Box::pin(async move { context.network.connect(destination).await }));
    }
    match timeout(
        context.timeouts.connect,
        race_attempts(attempts, context.timeouts.attempt_delay, None),
    )
    .await
    {
        Ok(Ok((_, stream))) => Ok(stream),
        Ok(Err(_)) | Err(_) => Err(Reason::Unreachable.into()),
    }
}
