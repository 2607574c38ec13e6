//! `[metrics]`: a listener for Prometheus that needs no API key.

use std::{fmt, net::SocketAddr};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The settings of `[metrics]`.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// The address of the listener, which serves `/metrics` only. Default: none.
    pub listen: Option<SocketAddr>,
    /// The token required as `Authorization: Bearer`. Default: none, which lets every client read
    /// the metrics.
    pub token: Option<String>,
}

/// Hides the token.
impl fmt::Debug for MetricsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsConfig").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl MetricsConfig {
    /// Validates what the types cannot express. `api` is the address of the API.
    ///
    /// # Errors
    /// A key is invalid; the error names it.
    pub(super) fn check(&self, api: Option<SocketAddr>) -> Result<()> {
        if let Some(token) = &self.token {
            if self.listen.is_none() {
                bail!("metrics.token: needs metrics.listen");
            }
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                bail!("metrics.token: write printable ASCII characters without spaces");
            }
        }
        if self.listen.is_some_and(|listen| listen.port() != 0 && api == Some(listen)) {
            bail!(
                "metrics.listen: is api.listen, which serves /metrics already; write another one"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let metrics: MetricsConfig = toml::from_str(text).expect("a table");
        let api = "127.0.0.1:3000".parse().expect("an address");
        metrics.check(Some(api)).expect_err(text).to_string()
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(problem(r#"token = "t""#).starts_with("metrics.token: needs metrics.listen"));
        for token in ["", "a b", "ä", "a\\n"] {
            let text = format!("listen = \"127.0.0.1:9464\"\ntoken = \"{token}\"");
            assert!(problem(&text).starts_with("metrics.token: write"), "{text}");
        }
        assert!(problem(r#"listen = "127.0.0.1:3000""#).starts_with("metrics.listen: is api"));
    }

    #[test]
    fn the_token_is_not_shown() {
        let text = "listen = \"127.0.0.1:9464\"\ntoken = \"hush-hush\"";
        let metrics: MetricsConfig = toml::from_str(text).expect("a table");
        metrics.check(None).expect("good");
        assert!(!format!("{metrics:?}").contains("hush"));
    }
}
