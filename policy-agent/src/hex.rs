//! Hexadecimal encoding, and random bytes in it.

use std::fmt;

use anyhow::{Context as _, Result};

/// Returns `N` random bytes in hexadecimal.
///
/// # Errors
/// The kernel provides no random bytes.
pub(crate) fn random_hex<const N: usize>() -> Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the kernel has no random numbers")?;
    Ok(HexDisplay(&bytes).to_string())
}

/// Displays bytes in lower-case hexadecimal.
pub(crate) struct HexDisplay<'a>(pub &'a [u8]);

impl fmt::Display for HexDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
