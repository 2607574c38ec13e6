//! The part of a verdict that a sandbox may see.

use std::net::IpAddr;

use policy_common::reason::Reason;
use serde_json::{Value, json};

use crate::{
    policy::{AllowHint, RuleRef, SandboxId},
    proxy::decision::ConnectionDecision,
};

/// The reason that a sandbox sees. Which of its lists the operator denies something by, and whether an
/// address is the host's own, is not its business.
pub(super) const fn visible_reason(reason: Reason) -> Reason {
    match reason {
        Reason::HostAddress => Reason::PlatformDeny,
        reason => reason,
    }
}

/// The rule, if it is the sandbox's own.
pub(super) fn visible_rule(rule: Option<&RuleRef>) -> Option<&RuleRef> {
    rule.filter(|rule| rule.list.starts_with("network."))
}

/// A verdict as JSON.
pub(super) fn visible_verdict(
    sandbox: &SandboxId,
    decision: &ConnectionDecision,
    address: Option<IpAddr>,
    name: Option<&str>,
) -> Value {
    let reason = visible_reason(decision.reason);
    let mut verdict = json!({
        "allowed": reason.passes() || decision.would_deny,
        "reason": reason.label(),
        "line": reason.line(),
        "help": reason.help(),
    });
    if let Some(rule) = visible_rule(decision.rule.as_ref()) {
        verdict["rule"] = serde_json::to_value(rule).unwrap_or_default();
    }
    if decision.would_deny {
        verdict["wouldDeny"] = true.into();
    }
    if !reason.passes()
        && let Some(hint) = AllowHint::for_denial(reason, address, name)
    {
        verdict["allowWith"] = hint.advice(sandbox).into();
        if let Some(entry) = hint.entry() {
            verdict["allowEntry"] = entry.into();
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_rules_are_not_shown() {
        let id: SandboxId = "web".parse().expect("an ID");
        let rule =
            RuleRef { list: "host_address", index: None, entry: "198.51.100.7/32".to_owned() };
        let decision = ConnectionDecision { rule: Some(rule), ..Reason::HostAddress.into() };
        let address = "198.51.100.7".parse().ok();
        let verdict = visible_verdict(&id, &decision, address, None);
        assert_eq!(verdict["reason"], "platform_deny");
        assert_eq!(verdict["allowed"], false);
        assert!(!verdict.to_string().contains("198.51.100.7"), "{verdict}");
        assert_eq!(verdict["allowWith"], "the operator's platform_allow only");
    }

    #[test]
    fn the_sandboxes_own_rules_and_hints_are_shown() {
        let id: SandboxId = "web".parse().expect("an ID");
        let denied = ConnectionDecision::from(Reason::NameNotAllowed);
        let verdict = visible_verdict(&id, &denied, None, Some("api.example.com"));
        assert_eq!(verdict["allowEntry"], "api.example.com");
        assert_eq!(verdict["allowWith"], "policy-agent allow web api.example.com");
        let rule = RuleRef {
            list: "network.allowOut",
            index: Some(0),
            entry: "api.example.com".to_owned(),
        };
        let allowed = ConnectionDecision { rule: Some(rule), ..Reason::AllowName.into() };
        let verdict = visible_verdict(&id, &allowed, None, Some("api.example.com"));
        assert_eq!(verdict["rule"]["entry"], "api.example.com");
        assert_eq!(verdict["allowed"], true);
    }
}
