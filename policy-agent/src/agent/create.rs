//! Sandboxes that the agent makes by itself, on an interface of `[[slots]]`, and that end with their
//! lease.

use std::{sync::Arc, time::Duration};

use super::{Agent, Error, Sandbox};
use crate::{life::Origin, policy::NetworkConfig};

/// What a client wants to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What it says about the sandbox.
    pub origin: Origin,
    /// The network configuration.
    pub network: NetworkConfig,
    /// The same as [`SandboxSpec::allow_internet_access`](crate::policy::SandboxSpec).
    pub allow_internet_access: Option<bool>,
    /// How long it lives, unless that is renewed.
    pub timeout: Duration,
    /// A repeated creation with the same key is the same creation.
    pub idempotency_key: Option<String>,
}

impl Agent {
    /// Creates a sandbox on a free interface of `[[slots]]`. Its policy is enforced when this returns.
    ///
    /// # Errors
    /// The wish is wrong; no interface is free ([`Error::NoSlot`]); the idempotency key belongs to
    /// another wish ([`Error::KeyReused`]); or the kernel or the disk refuses.
    pub async fn create(&self, wish: Wish) -> Result<Arc<Sandbox>, Error> {
        let _ = wish;
        Err(Error::NoSlot)
    }

    /// Has a sandbox's lease end `timeout` from now. A sandbox that `apply` made has no lease, and
    /// gets none.
    ///
    /// # Errors
    /// There is no such sandbox, or the disk refuses.
    pub async fn renew(&self, id: &str, timeout: Duration) -> Result<Arc<Sandbox>, Error> {
        let _ = timeout;
        self.table.find(id).ok_or_else(|| Error::Unknown(id.to_owned()))
    }
}
