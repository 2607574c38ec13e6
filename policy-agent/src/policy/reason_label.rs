//! The labels of reasons, as users write them.

use policy_common::reason::Reason;

use super::{ValidationError, closest_name};

/// Parses the label of a reason.
///
/// # Errors
/// No reason has this label.
pub fn parse_reason_label(label: &str) -> Result<Reason, ValidationError> {
    let known = || Reason::ALL.iter().copied();
    known().find(|reason| reason.label() == label).ok_or_else(|| {
        let problem = match closest_name(label, known().map(Reason::label)) {
            Some(meant) => format!("no such reason; did you mean {meant}?"),
            None => "no such reason; write one of docs/reasons.md, like deny_out".to_owned(),
        };
        ValidationError::about_entry("reason", label, problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_known_and_a_misspelt_one_is_guessed() {
        for reason in Reason::ALL {
            assert_eq!(parse_reason_label(reason.label()), Ok(*reason));
        }
        let problem = |label| parse_reason_label(label).expect_err(label).problem;
        assert!(problem("denyout").ends_with("did you mean deny_out?"));
        assert!(problem("weather").contains("docs/reasons.md"));
    }
}
