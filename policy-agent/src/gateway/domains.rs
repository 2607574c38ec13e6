//! The domains below which the sandboxes' hosts are.

/// All domains of the gateway, the longest first, since one may be below another.
#[derive(Clone, Debug)]
pub(super) struct GatewayDomains(Vec<String>);

impl GatewayDomains {
    /// Domains in lower case.
    pub(super) fn new(mut domains: Vec<String>) -> Self {
        domains.sort_by_key(|domain| std::cmp::Reverse(domain.len()));
        Self(domains)
    }

    /// What precedes a domain and its dot in a host name in lower case. `None` if the name is in
    /// none of the domains.
    pub(super) fn strip_from<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.0.iter().find_map(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_domain_counts() {
        let domains = ["example.com", "b.example.com", "example.org"].map(str::to_owned);
        let domains = GatewayDomains::new(domains.to_vec());
        for (name, expected) in [
            ("1-a.example.com", Some("1-a")),
            ("1-a.b.example.com", Some("1-a")),
            ("1-a.example.org", Some("1-a")),
            ("1-a.c.example.com", Some("1-a.c")),
            ("1-a.evil-example.com", None),
            ("example.com", None),
        ] {
            assert_eq!(domains.strip_from(name), expected, "{name}");
        }
    }
}
