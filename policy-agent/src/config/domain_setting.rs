//! `gateway.domain`: one domain or several.

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::policy::DomainName;

/// The longest DNS label in bytes.
pub(super) const MAX_LABEL_LEN: usize = 63;
/// The bytes before the domain of a public URL: a label of maximum length and a dot.
const DOMAIN_PREFIX_LEN: usize = MAX_LABEL_LEN + 1;
/// The longest DNS name in bytes.
const MAX_NAME_LEN: usize = 253;

/// `gateway.domain`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged, expecting = "write a domain, or a list of domains")]
pub enum DomainSetting {
    /// One domain.
    One(String),
    /// Several domains.
    Several(Vec<String>),
}

impl DomainSetting {
    /// All domains.
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(domain) => std::slice::from_ref(domain),
            Self::Several(domains) => domains,
        }
    }

    /// Validates what the types cannot express.
    ///
    /// # Errors
    /// A domain is invalid; the error names it.
    pub(super) fn check(&self) -> Result<()> {
        let domains = self.as_slice();
        if domains.is_empty() {
            bail!("gateway.domain: is an empty list; write at least one domain");
        }
        for (index, domain) in domains.iter().enumerate() {
            let key = match self {
                Self::One(_) => "gateway.domain".to_owned(),
                Self::Several(_) => format!("gateway.domain[{index}]"),
            };
            check_domain(&key, domain)?;
            if domains[..index].contains(domain) {
                bail!("{key}: {domain:?}: is given twice");
            }
        }
        Ok(())
    }
}

fn check_domain(key: &str, domain: &str) -> Result<()> {
    let name = DomainName::parse(domain);
    let name = name.map_err(|problem| anyhow!("{key}: {domain:?}: {problem}"))?;
    if domain.contains('_') {
        // RFC 5280, 4.2.1.6: a certificate cannot contain such a name.
        bail!("{key}: {domain:?}: '_' cannot stand in the name of a certificate");
    }
    if name.as_str() != domain {
        bail!("{key}: {domain:?}: write it as {:?}", name.as_str());
    }
    if domain.len() > MAX_NAME_LEN - DOMAIN_PREFIX_LEN {
        bail!("{key}: {domain:?}: leaves no room for the sandboxes' names below it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::GatewayConfig;

    fn gateway(text: &str) -> GatewayConfig {
        toml::from_str(text).expect("a gateway")
    }

    fn problem(text: &str) -> String {
        gateway(text).check().expect_err(text).to_string()
    }

    #[test]
    fn a_domain_is_a_lower_case_name() {
        for wrong in ["Sandbox.Example", "a..b", "a_b.example", "*.example", "example.", "10.0.0.1"]
        {
            let problem = problem(&format!("domain = {wrong:?}"));
            assert!(problem.starts_with(&format!("gateway.domain: {wrong:?}: ")), "{problem}");
        }
        let long = vec!["a".repeat(60); 4].join(".");
        assert!(problem(&format!("domain = {long:?}")).contains("no room"));
        gateway("domain = \"sandbox.localhost\"").check().expect("a right domain");
        let list = gateway("domain = [\"b.example\", \"a.example\"]");
        list.check().expect("two domains");
        assert_eq!(list.first_domain(), Some("b.example"));
        assert!(problem("domain = []").starts_with("gateway.domain: is an empty list"));
        let second = problem("domain = [\"a.example\", \"A.example\"]");
        assert!(second.starts_with("gateway.domain[1]: \"A.example\": "), "{second}");
        assert!(problem("domain = [\"a.example\", \"a.example\"]").contains("twice"));
        let wrong = toml::from_str::<GatewayConfig>("domain = 1").expect_err("a number");
        assert!(wrong.to_string().contains("a list of domains"), "{wrong}");
    }
}
