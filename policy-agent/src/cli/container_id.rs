//! IDs of the sandboxes of containers, for the CNI plugin and the OCI hook.

use sha2::{Digest as _, Sha256};

use crate::hex::HexDisplay;

/// Maximum number of characters of a container's ID in that of its sandbox.
const CONTAINER_CHARACTERS: usize = 36;

/// The ID of a container's sandbox: a prefix, the beginning of the container's ID, by which people
/// know it, and a digest of what makes it unique.
pub(super) fn container_sandbox_id(prefix: &str, container: &str, unique: &str) -> String {
    let known = container.chars().filter(char::is_ascii_alphanumeric).take(CONTAINER_CHARACTERS);
    let known: String = known.map(|it| it.to_ascii_lowercase()).collect();
    format!("{prefix}{known}{}", hex_digest(unique))
}

/// Eight hexadecimal digits.
pub(super) fn hex_digest(text: &str) -> String {
    HexDisplay(&Sha256::digest(text)[..4]).to_string()
}
