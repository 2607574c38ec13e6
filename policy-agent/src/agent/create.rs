//! Sandboxes that the agent makes by itself, on an interface of `[[interfaces]]`, and that end with their
//! lease.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use sha2::{Digest as _, Sha256};

use super::{Agent, error::Error, reconciler::Reconciler, sandbox::Sandbox};
use crate::{
    life::{Hex, Idempotency, Life, Origin, Term, random_hex},
    policy::{NetworkConfig, SandboxId, SandboxSpec, Secret},
};

/// Random bytes of an ID.
const ID_BYTES: usize = 10;
/// Characters of an ID: a letter, and digits of those bytes.
const ID_LENGTH: usize = 20;

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

impl Wish {
    /// What makes another creation with the same key the same one. `None`: nothing does.
    fn idempotency(&self) -> anyhow::Result<Option<Idempotency>> {
        let Some(key) = &self.idempotency_key else { return Ok(None) };
        let proxy = self.network.egress_proxy.as_ref();
        // Not serialised with the rest, since it must not show.
        let password = proxy.and_then(|proxy| proxy.password.as_ref()).map(Secret::reveal);
        let rest = (&self.origin, &self.network, self.allow_internet_access, self.timeout);
        let wish = serde_json::to_vec(&(rest, password)).context("a wish is no JSON")?;
        Ok(Some(Idempotency { key: digest(key.as_bytes()), wish: digest(&wish) }))
    }
}

fn digest(bytes: &[u8]) -> String {
    Hex(&Sha256::digest(bytes)).to_string()
}

impl Agent {
    /// Creates a sandbox on a free interface of `[[interfaces]]`. Its policy is enforced when this returns.
    ///
    /// # Errors
    /// The wish is wrong; no interface is free ([`Error::NoSlot`]); the idempotency key belongs to
    /// another wish ([`Error::KeyReused`]); or the kernel or the disk refuses.
    pub async fn create(&self, wish: Wish) -> Result<Arc<Sandbox>, Error> {
        let created = self.timed(move |reconciler| reconciler.create(wish)).await?;
        self.renewed.notify_one();
        Ok(created)
    }

    /// Has a sandbox's lease end `timeout` from now. A sandbox that `apply` made has no lease, and
    /// gets none.
    ///
    /// # Errors
    /// There is no such sandbox, the timeout is too long, or the disk refuses.
    pub async fn renew(&self, id: &str, timeout: Duration) -> Result<Arc<Sandbox>, Error> {
        let id = id.to_owned();
        let renewed = self.change(move |reconciler| reconciler.renew(&id, timeout)).await??;
        self.renewed.notify_one();
        Ok(renewed)
    }
}

impl Reconciler {
    /// Creates a sandbox; see [`Agent::create`].
    ///
    /// # Errors
    /// As there. Nothing is left of a sandbox that was refused.
    pub fn create(&mut self, wish: Wish) -> Result<Arc<Sandbox>, Error> {
        self.law.judge_network(&wish.network, wish.allow_internet_access)?;
        let term = Term::lasting(wish.timeout)?;
        let idempotency = wish.idempotency().map_err(Error::Internal)?;
        if let Some(created) = self.created_before(idempotency.as_ref())? {
            return Ok(created);
        }
        let id = new_id()?;
        let Wish { origin, network, allow_internet_access, .. } = wish;
        let spec = self.free_berth(|berth| berth.spec(&id, network.clone(), allow_internet_access));
        let spec = spec.ok_or(Error::NoSlot)?;
        let life = Life::leased(origin, idempotency, term).map_err(Error::Internal)?;
        self.admit(spec, life)?;
        self.table.get(&id).ok_or_else(|| Error::Internal(anyhow!("a sandbox got lost")))
    }

    /// The sandbox that was created with this key.
    fn created_before(
        &self,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<Arc<Sandbox>>, Error> {
        let Some(wanted) = idempotency else { return Ok(None) };
        for sandbox in self.table.all() {
            match sandbox.life.idempotency() {
                Some(known) if known == wanted => return Ok(Some(sandbox)),
                Some(known) if known.key == wanted.key => {
                    return Err(Error::KeyReused(sandbox.id().clone()));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Goes the way of `apply`, with a life.
    fn admit(&mut self, spec: SandboxSpec, life: Life) -> Result<(), Error> {
        // Whether the host needs the interface was asked when it was chosen.
        let candidate = self.check(vec![spec], true)?.pop();
        let candidate = candidate.ok_or_else(|| Error::Internal(anyhow!("nothing to create")))?;
        let change = self.stage(candidate, Some(life))?;
        self.commit_one(change)
    }
}

/// An ID that nobody can guess.
pub(super) fn new_id() -> Result<SandboxId, Error> {
    let mut id = format!("i{}", random_hex::<ID_BYTES>().map_err(Error::Internal)?);
    id.truncate(ID_LENGTH);
    Ok(id.parse()?)
}
