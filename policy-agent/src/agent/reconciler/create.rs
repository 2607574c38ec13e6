//! Sandboxes that the agent creates on an interface of `[[interfaces]]`. They end with their lease.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use sha2::{Digest as _, Sha256};

use super::Reconciler;
use crate::{
    agent::{
        error::AgentError,
        sandbox::{
            Sandbox,
            lease::{IdempotencyRecord, LeaseDeadline, SandboxMetadata},
            lifetime::SandboxLifetime,
        },
    },
    hex::{HexDisplay, random_hex},
    policy::{NetworkConfig, NetworkRules, SandboxId, SandboxSpec, SecretString},
};

/// Number of random bytes in an ID.
const ID_BYTES: usize = 10;
/// Length of an ID in characters: a letter and hexadecimal digits of those bytes.
const ID_LENGTH: usize = 20;

/// A request to create a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRequest {
    /// Data from the creator.
    pub metadata: SandboxMetadata,
    /// The network configuration.
    pub network: NetworkConfig,
    /// As in [`SandboxSpec::allow_internet_access`](crate::policy::SandboxSpec).
    pub allow_internet_access: Option<bool>,
    /// Duration of the lease, until it is renewed.
    pub timeout: Duration,
    /// A repeated request with the same key returns the sandbox of the first one.
    pub idempotency_key: Option<String>,
}

impl CreateRequest {
    /// Returns the digests by which a repeated request is recognised. `None` without a key.
    fn idempotency_record(&self) -> anyhow::Result<Option<IdempotencyRecord>> {
        let Some(key) = &self.idempotency_key else { return Ok(None) };
        let proxy = self.network.egress_proxy.as_ref();
        // The network configuration omits the password and the values of headers when it is
        // serialised, so that they are not shown.
        let password = proxy.and_then(|proxy| proxy.password.as_ref()).map(SecretString::reveal);
        let rest = (&self.metadata, &self.network, self.allow_internet_access, self.timeout);
        let request = match self.network.rules.as_ref().map(NetworkRules::to_json_with_values) {
            None => serde_json::to_vec(&(rest, password)),
            Some(rules) => serde_json::to_vec(&(rest, password, rules)),
        };
        let request = request.context("a request is no JSON")?;
        Ok(Some(IdempotencyRecord {
            key_digest: hex_digest(key.as_bytes()),
            request_digest: hex_digest(&request),
        }))
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    HexDisplay(&Sha256::digest(bytes)).to_string()
}

impl Reconciler {
    /// Creates a sandbox; see [`Agent::create`](crate::agent::Agent::create).
    ///
    /// # Errors
    /// The same as there. A rejected request leaves nothing behind.
    pub(crate) fn create(&mut self, request: CreateRequest) -> Result<Arc<Sandbox>, AgentError> {
        self.platform_policy
            .get()
            .policy_for_network(&request.network, request.allow_internet_access)?;
        let deadline = LeaseDeadline::after(request.timeout)?;
        let idempotency_record = request.idempotency_record().map_err(AgentError::Internal)?;
        if let Some(created) = self.find_by_idempotency_key(idempotency_record.as_ref())? {
            return Ok(created);
        }
        let id = random_sandbox_id()?;
        let CreateRequest { metadata, network, allow_internet_access, .. } = request;
        let spec = self.interface_pool.find_free(&self.endpoints, |pooled| {
            pooled.sandbox_spec(&id, network.clone(), allow_internet_access)
        });
        let spec = spec.ok_or(AgentError::NoFreeInterface)?;
        let lifetime = SandboxLifetime::with_lease(metadata, idempotency_record, deadline)
            .map_err(AgentError::Internal)?;
        self.allocate_and_commit(spec, lifetime)?;
        self.registry.get(&id).ok_or_else(|| {
            AgentError::Internal(anyhow!("a created sandbox is not in the registry"))
        })
    }

    /// Returns the sandbox that was created with this key.
    fn find_by_idempotency_key(
        &self,
        idempotency_record: Option<&IdempotencyRecord>,
    ) -> Result<Option<Arc<Sandbox>>, AgentError> {
        let Some(record) = idempotency_record else { return Ok(None) };
        for sandbox in self.registry.all() {
            match sandbox.lifetime.idempotency() {
                Some(known) if known == record => return Ok(Some(sandbox)),
                Some(known) if known.key_digest == record.key_digest => {
                    return Err(AgentError::IdempotencyKeyReused(sandbox.id().clone()));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Executes the same steps as `apply`, with a lease.
    fn allocate_and_commit(
        &mut self,
        spec: SandboxSpec,
        lifetime: SandboxLifetime,
    ) -> Result<(), AgentError> {
        // An interface that the host itself needs was rejected when the interface was chosen.
        let validated = self.validate_specs(vec![spec], true)?.pop();
        let validated =
            validated.ok_or_else(|| AgentError::Internal(anyhow!("nothing to create")))?;
        let change = self.allocate(validated, Some(lifetime))?;
        self.commit_one(change)
    }
}

/// Returns an unguessable ID.
pub(crate) fn random_sandbox_id() -> Result<SandboxId, AgentError> {
    let mut id = format!("i{}", random_hex::<ID_BYTES>().map_err(AgentError::Internal)?);
    id.truncate(ID_LENGTH);
    Ok(id.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse_json;

    #[test]
    fn a_request_with_another_header_is_another_request() {
        let digest = |value: &str| {
            let network = format!(
                r#"{{"rules":{{"a.example":[{{"transform":{{"headers":{{"X":"{value}"}}}}}}]}}}}"#
            );
            let request = CreateRequest {
                metadata: SandboxMetadata::default(),
                network: parse_json(network.as_bytes()).expect("a network"),
                allow_internet_access: None,
                timeout: Duration::from_secs(1),
                idempotency_key: Some("key".to_owned()),
            };
            let record = request.idempotency_record().expect("JSON").expect("a record");
            record.request_digest
        };
        assert_eq!(digest("1"), digest("1"));
        assert_ne!(digest("1"), digest("2"));
    }
}
