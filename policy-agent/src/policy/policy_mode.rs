//! Whether the policy of a sandbox is enforced, or only observed. Only the operator decides that: the
//! fields are beside `network`, which is what a sandbox's user may change.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{SandboxSpec, ValidationError};

/// Whether a policy is enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PolicyMode {
    /// What the policy denies is denied.
    #[default]
    Enforce,
    /// What the policy denies passes, and is recorded as `would_deny`. The floor is enforced.
    Observe,
}

impl PolicyMode {
    /// Whether it is the default.
    #[must_use]
    pub const fn is_enforce(&self) -> bool {
        matches!(self, Self::Enforce)
    }
}

impl SandboxSpec {
    /// Observes the sandbox until a time, or until the operator ends it.
    pub const fn observe(&mut self, until: Option<Timestamp>) {
        self.mode = PolicyMode::Observe;
        self.observe_until = until;
    }

    /// Enforces the policy.
    pub const fn enforce(&mut self) {
        self.mode = PolicyMode::Enforce;
        self.observe_until = None;
    }

    /// Enforces the policy if the observation ends at `now` or before. Returns whether it does.
    pub fn end_observation(&mut self, now: Timestamp) -> bool {
        let ends = self.observe_until.is_some_and(|until| until <= now);
        if ends {
            self.enforce();
        }
        ends
    }

    /// Rejects an end of an observation that there is not.
    pub(super) fn check_mode(&self) -> Result<(), ValidationError> {
        if self.observe_until.is_some() && self.mode.is_enforce() {
            let problem = "without \"mode\": \"observe\" there is nothing that ends; leave it out";
            return Err(ValidationError::about_field("observeUntil", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse_json;

    fn spec(fields: &str) -> SandboxSpec {
        let text = format!(
            r#"{{"sandboxID":"web","interface":"tap0","addresses":["10.11.0.2"]{fields}}}"#
        );
        parse_json(text.as_bytes()).expect("a sandbox")
    }

    #[test]
    fn an_observation_ends_at_its_time() {
        let mut observed = spec(r#","mode":"observe","observeUntil":"2026-11-29T12:00:00Z""#);
        let at = |text: &str| text.parse::<Timestamp>().expect(text);
        assert_eq!(observed.next_expiry(), Some(at("2026-11-29T12:00:00Z")));
        assert!(!observed.end_observation(at("2026-11-29T11:59:59Z")));
        assert!(observed.end_observation(at("2026-11-29T12:00:00Z")));
        assert_eq!(observed, spec(""));
    }

    #[test]
    fn an_end_needs_an_observation() {
        let without = spec(r#","observeUntil":"2026-11-29T12:00:00Z""#);
        assert_eq!(without.validate().expect_err("nothing ends").field, "observeUntil");
        spec(r#","mode":"observe""#).validate().expect("until the operator ends it");
    }

    #[test]
    fn the_default_is_not_written() {
        let text = serde_json::to_string(&spec("")).expect("serialises");
        assert!(!text.contains("mode") && !text.contains("observeUntil"), "{text}");
    }
}
