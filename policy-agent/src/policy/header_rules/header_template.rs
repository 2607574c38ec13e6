//! The value of a header in a rule: text, with placeholders for secrets.

use std::{fmt, iter};

use http::HeaderValue;
use zeroize::Zeroizing;

use super::super::{SecretLookup, SecretName};

/// Prefix of all placeholders. What follows decides whether it is one, or text.
const E2B_PLACEHOLDER: &str = "${e2b.";
const SECRET_PLACEHOLDER: &str = "${e2b.secrets.";
const IDENTITY_PLACEHOLDER: &str = "${e2b.identity.";

/// The value of a header. `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HeaderTemplate(TemplateValue);

#[derive(Clone, PartialEq, Eq, Hash)]
enum TemplateValue {
    /// Without placeholders.
    Fixed(HeaderValue),
    WithSecrets {
        first: SecretReference,
        more: Vec<SecretReference>,
        /// The text after the last placeholder.
        suffix: String,
    },
}

/// A placeholder with the text before it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SecretReference {
    text: String,
    name: SecretName,
}

/// Why a header has no value at the moment. The request must not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// No secret has this name.
    #[error("there is no secret {0}")]
    UnknownSecret(SecretName),
    /// The value of this secret cannot be part of a header.
    #[error("the value of the secret {0} cannot be sent in a header")]
    InvalidValue(SecretName),
}

/// Why a template is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TemplateError {
    /// A placeholder is not closed, or names no possible secret.
    Malformed,
    /// A placeholder for an identity token.
    Identity,
    /// A character that no header can contain.
    InvalidCharacter,
}

impl HeaderTemplate {
    /// Parses a value as it is in a rule, from left to right.
    pub(super) fn parse(value: &str) -> Result<Self, TemplateError> {
        let fixed = HeaderValue::from_bytes(value.as_bytes());
        let mut fixed = fixed.map_err(|_| TemplateError::InvalidCharacter)?;
        let (references, suffix) = split_placeholders(value)?;
        let mut references = references.into_iter();
        Ok(Self(match references.next() {
            None => {
                fixed.set_sensitive(true);
                TemplateValue::Fixed(fixed)
            }
            Some(first) => TemplateValue::WithSecrets { first, more: references.collect(), suffix },
        }))
    }

    /// The secrets that it refers to.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        let (first, more) = match &self.0 {
            TemplateValue::Fixed(_) => (None, [].as_slice()),
            TemplateValue::WithSecrets { first, more, .. } => (Some(first), more.as_slice()),
        };
        first.into_iter().chain(more).map(|reference| &reference.name)
    }

    /// The header's value with the current secrets, marked as sensitive.
    ///
    /// # Errors
    /// A secret does not exist, or its value cannot be part of a header. Then the request must not
    /// be sent.
    pub fn render(&self, secrets: &dyn SecretLookup) -> Result<HeaderValue, RenderError> {
        let (first, more, suffix) = match &self.0 {
            TemplateValue::Fixed(value) => return Ok(value.clone()),
            TemplateValue::WithSecrets { first, more, suffix } => (first, more, suffix),
        };
        let mut value = Zeroizing::new(Vec::new());
        for reference in iter::once(first).chain(more) {
            value.extend_from_slice(reference.text.as_bytes());
            append_secret(&mut value, &reference.name, secrets)?;
        }
        value.extend_from_slice(suffix.as_bytes());
        // Its parts are valid, so all of it is.
        let value = HeaderValue::from_bytes(&value);
        let mut value = value.map_err(|_| RenderError::InvalidValue(first.name.clone()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The placeholders for secrets, and the text after the last one. Any other `${…}` is text.
fn split_placeholders(value: &str) -> Result<(Vec<SecretReference>, String), TemplateError> {
    let (mut references, mut text, mut rest) = (Vec::new(), String::new(), value);
    while let Some(start) = rest.find(E2B_PLACEHOLDER) {
        let placeholder = &rest[start..];
        if placeholder.starts_with(IDENTITY_PLACEHOLDER) {
            return Err(TemplateError::Identity);
        }
        let Some(name) = placeholder.strip_prefix(SECRET_PLACEHOLDER) else {
            let (other, after) = rest.split_at(start + E2B_PLACEHOLDER.len());
            text.push_str(other);
            rest = after;
            continue;
        };
        let (name, after) = name.split_once('}').ok_or(TemplateError::Malformed)?;
        let name = SecretName::parse(name).map_err(|_| TemplateError::Malformed)?;
        text.push_str(&rest[..start]);
        references.push(SecretReference { text: std::mem::take(&mut text), name });
        rest = after;
    }
    text.push_str(rest);
    Ok((references, text))
}

fn append_secret(
    value: &mut Zeroizing<Vec<u8>>,
    name: &SecretName,
    secrets: &dyn SecretLookup,
) -> Result<(), RenderError> {
    let secret = secrets.current_value(name);
    let secret = secret.ok_or_else(|| RenderError::UnknownSecret(name.clone()))?;
    // CR, LF, NUL and other control characters would end the header or make it ambiguous.
    if HeaderValue::from_bytes(secret.reveal()).is_err() {
        return Err(RenderError::InvalidValue(name.clone()));
    }
    value.extend_from_slice(secret.reveal());
    Ok(())
}

impl fmt::Debug for HeaderTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderTemplate(…)")
    }
}
