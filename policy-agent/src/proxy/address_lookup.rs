//! Looks up the addresses that a connection to a name would try, for queries that do not connect.

use std::net::IpAddr;

use policy_common::reason::Reason;

use super::{
    TransparentProxy,
    dial::{resolve_in_dial_order, undialable_reason},
};
use crate::policy::DomainName;

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
        let context = &self.context;
        let mut resolved = Vec::new();
        for address in resolve_in_dial_order(context, &self.lookup_limiter, name).await {
            let reason = undialable_reason(context, address, port).await;
            let is_gateway = context.is_gateway_address(address, port);
            resolved.push(ResolvedAddress { address, undialable_reason: reason, is_gateway });
        }
        resolved
    }
}
