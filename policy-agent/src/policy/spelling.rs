//! "Did you mean": finds the known name that is most similar to a misspelt one.

/// The name among `known` that `misspelt` most likely refers to. Ignores case, `_` and `-`, because
/// both spellings of fields are in use.
pub fn closest_name<'a>(misspelt: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let meant = plain(misspelt);
    // One edit per three letters, as in compilers.
    let slips = meant.len().max(3) / 3;
    let known = known.map(|name| (strsim::damerau_levenshtein(&meant, &plain(name)), name));
    known
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::closest_name;

    #[test]
    fn names_that_look_alike() {
        let known = ["allowOut", "denyOut", "dnsServers", "httpsPorts", "mac"];
        for (misspelt, meant) in [
            ("allowout", Some("allowOut")),
            ("allow_out", Some("allowOut")),
            ("allow-outs", Some("allowOut")),
            ("dnyOut", Some("denyOut")),
            ("dnsServer", Some("dnsServers")),
            ("mca", Some("mac")),
            ("rules", None),
            ("", None),
        ] {
            assert_eq!(closest_name(misspelt, known.into_iter()), meant, "{misspelt}");
        }
    }
}
