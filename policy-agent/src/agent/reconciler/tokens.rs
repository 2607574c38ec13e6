//! Issues traffic tokens that expire, and revokes them.

use std::{sync::Arc, time::Duration};

use anyhow::Error;

use super::Reconciler;
use crate::{
    agent::{
        error::AgentError,
        sandbox::{
            Sandbox,
            issued_tokens::{IssuedToken, MAX_ISSUED_TOKENS, PersistedToken},
            lease::LeaseDeadline,
            lifetime::random_token,
            store::SandboxRecord,
        },
    },
    policy::ValidationError,
};

impl Reconciler {
    /// Issues another token for the public URLs of a sandbox, which is valid for this time.
    ///
    /// # Errors
    /// There is no such sandbox, it has too many tokens, or the disk reports an error. There is no
    /// new token then.
    pub fn issue_token(&mut self, id: &str, lifetime: Duration) -> Result<IssuedToken, AgentError> {
        let deadline = LeaseDeadline::after(lifetime)?;
        let sandbox: Arc<Sandbox> = self.registry.require(id)?;
        let token = random_token().map_err(AgentError::Internal)?;
        let issued = IssuedToken { token, deadline };
        let mut record = sandbox.to_record();
        if record.lifetime.issued_tokens.len() >= MAX_ISSUED_TOKENS {
            let problem = format!(
                "the sandbox has {MAX_ISSUED_TOKENS} tokens that have not expired: wait until one \
                 has"
            );
            let invalid = ValidationError::about_field("expiresIn", problem);
            return Err(AgentError::for_sandbox(sandbox.id(), invalid));
        }
        record.lifetime.issued_tokens.push(PersistedToken::from(&issued));
        self.save_tokens(&record, "there is no new token")?;
        sandbox.lifetime.add_token(issued.clone());
        Ok(issued)
    }

    /// Revokes all tokens that were issued for a sandbox. It keeps its own.
    ///
    /// # Errors
    /// There is no such sandbox, or the disk reports an error. The tokens stay valid then.
    pub fn revoke_tokens(&mut self, id: &str) -> Result<(), AgentError> {
        let sandbox: Arc<Sandbox> = self.registry.require(id)?;
        let mut record = sandbox.to_record();
        record.lifetime.issued_tokens.clear();
        self.save_tokens(&record, "they stay valid")?;
        sandbox.lifetime.revoke_tokens();
        Ok(())
    }

    fn save_tokens(
        &self,
        record: &SandboxRecord,
        consequence: &'static str,
    ) -> Result<(), AgentError> {
        let failed = |cause: Error| AgentError::Failed {
            sandbox: record.spec.sandbox_id.clone(),
            failure: "cannot write its tokens to disk",
            consequence,
            cause,
        };
        self.store.save(record).map_err(failed)
    }
}
