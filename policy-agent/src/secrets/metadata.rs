//! What a client stores with a secret.

use std::collections::BTreeMap;

use crate::policy::ValidationError;

/// Maximum number of entries.
const MAX_ENTRIES: usize = 32;
/// Maximum length of a key in bytes.
const MAX_KEY_LEN: usize = 128;
/// Maximum length of a value in bytes.
const MAX_ENTRY_LEN: usize = 1024;
/// Maximum length of all keys and values together in bytes.
const MAX_METADATA_LEN: usize = 8192;

/// The metadata of a secret, which answers hold unchanged.
pub(crate) type SecretMetadata = BTreeMap<String, String>;

/// Rejects metadata that is too large.
pub(super) fn check_metadata(metadata: &SecretMetadata) -> Result<(), ValidationError> {
    let reject = |problem: String| Err(ValidationError::about_field("metadata", problem));
    if metadata.len() > MAX_ENTRIES {
        return reject(format!("has {} entries; the limit is {MAX_ENTRIES}", metadata.len()));
    }
    if metadata.keys().any(|key| key.len() > MAX_KEY_LEN) {
        return reject(format!("a key is longer than {MAX_KEY_LEN} bytes"));
    }
    if metadata.values().any(|value| value.len() > MAX_ENTRY_LEN) {
        return reject(format!("a value is longer than {MAX_ENTRY_LEN} bytes"));
    }
    if metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_METADATA_LEN
    {
        return reject(format!("is longer than {MAX_METADATA_LEN} bytes in all"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded() {
        let of = |count: usize, key: usize, value: usize| -> SecretMetadata {
            let entry = |index: usize| (format!("{index:0>key$}"), "v".repeat(value));
            (0..count).map(entry).collect()
        };
        for (metadata, problem) in [
            (of(0, 0, 0), None),
            (of(32, 128, 128), None),
            (of(1, 128, 1024), None),
            (of(33, 2, 1), Some("33 entries")),
            (of(1, 129, 1), Some("a key is longer")),
            (of(1, 1, 1025), Some("a value is longer")),
            (of(32, 128, 129), Some("in all")),
        ] {
            let error = check_metadata(&metadata).err().map(|error| error.to_string());
            match problem {
                None => assert_eq!(error, None),
                Some(problem) => assert!(error.as_ref().is_some_and(|it| it.contains(problem))),
            }
        }
    }
}
