//! Looks up the addresses that a connection to a name would try, for queries that do not connect.

use std::net::IpAddr;

use policy_common::reason::Reason;
use tokio::time::timeout;

use super::{
    TransparentProxy,
    dial::{MAX_ADDRESSES, undialable_reason},
};
use crate::{net::happy_eyeballs::interleave_families, policy::DomainName};

/// An address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedAddress {
    /// The address.
    pub address: IpAddr,
    /// Why the egress proxy does not dial an address that the floor admits. `None` if it would.
    pub undialable_reason: Option<Reason>,
    /// Whether the agent's own gateway listens there. That may be an address of the host itself.
    pub is_gateway: bool,
}

impl TransparentProxy {
    /// The addresses that a connection to this name would try, in order. Empty if the name has none
    /// or does not resolve. The default port is 443.
    pub async fn lookup_addresses(
        &self,
        name: &DomainName,
        port: Option<u16>,
    ) -> Vec<ResolvedAddress> {
        let port = port.unwrap_or(443);
        let (context, time_limit) = (&self.context, self.context.timeouts.resolve);
        let answer = timeout(time_limit, context.network.resolve(name)).await.unwrap_or_default();
        let addresses: Vec<IpAddr> = answer.iter().map(IpAddr::to_canonical).collect();
        let mut resolved = Vec::new();
        for address in interleave_families(&addresses).into_iter().take(MAX_ADDRESSES) {
            let reason = timeout(time_limit, undialable_reason(context, address, port))
                .await
                .unwrap_or_default();
            let is_gateway = context.is_gateway_address(address, port);
            resolved.push(ResolvedAddress { address, undialable_reason: reason, is_gateway });
        }
        resolved
    }
}
