//! The value of a secret in a request.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use super::SecretValue;

/// The value of a secret as a client sends it. Errors do not quote it.
pub(crate) struct SubmittedValue(pub SecretValue);

impl<'de> Deserialize<'de> for SubmittedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl de::Visitor<'_> for TextVisitor {
    type Value = SubmittedValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SubmittedValue, E> {
        Ok(SubmittedValue(SecretValue::new(text.as_bytes().to_vec())))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<SubmittedValue, E> {
        Ok(SubmittedValue(SecretValue::new(text.into_bytes())))
    }

    // serde's own errors about numbers quote them.
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<SubmittedValue, E> {
        Err(E::custom("must be a string"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SubmittedValue, E> {
        Err(E::custom("must be a string"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SubmittedValue, E> {
        Err(E::custom("must be a string"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_do_not_quote_it() {
        for text in ["12345", "-12345", "12345.5", "null", "[12345]", r#"{"12345":1}"#] {
            let error = serde_json::from_str::<SubmittedValue>(text).err().expect(text);
            assert!(!error.to_string().contains("12345"), "{error}");
        }
        let value = serde_json::from_str::<SubmittedValue>(r#""a\n""#).expect("text");
        assert_eq!(value.0.reveal(), b"a\n");
    }
}
