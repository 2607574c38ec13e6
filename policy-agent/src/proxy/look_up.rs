//! What a connection to a name would find, for whoever only asks.

use std::net::IpAddr;

use policy_common::reason::Reason;
use tokio::time::timeout;

use super::{
    Proxy,
    dial::{MOST, closed},
};
use crate::{net::race::interleaved, policy::Name};

/// An address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub address: IpAddr,
    /// Why the egress proxy does not dial it although the floor may admit it, if it does not.
    pub closed: Option<Reason>,
    /// Whether the agent's own gateway listens there, which may be the host itself.
    pub is_gateway: bool,
}

impl Proxy {
    /// The addresses of a name that a connection would try, in their order. None: the name has
    /// none, or nobody knows. Without a port they are looked at as on 443.
    pub async fn look_up(&self, name: &Name, port: Option<u16>) -> Vec<Found> {
        let port = port.unwrap_or(443);
        let (means, patience) = (&self.means, self.means.patience.resolve);
        let answer = timeout(patience, means.network.resolve(name)).await.unwrap_or_default();
        let addresses: Vec<IpAddr> = answer.iter().map(IpAddr::to_canonical).collect();
        let mut found = Vec::new();
        for address in interleaved(&addresses).into_iter().take(MOST) {
            let reason = timeout(patience, closed(means, address, port)).await.unwrap_or_default();
            let is_gateway = means.serves(address, port);
            found.push(Found { address, closed: reason, is_gateway });
        }
        found
    }
}
