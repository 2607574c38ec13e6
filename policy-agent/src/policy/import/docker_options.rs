//! Commands `docker sandbox network proxy SANDBOX --policy … --allow-host …`, as scripts have them.
//!
//! Source: the reference of Docker's command line.

use super::ImportedPolicy;

/// What Docker does with what no option names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DefaultPolicy {
    Allow,
    Deny,
}

pub(super) fn read(text: &str) -> Result<ImportedPolicy, String> {
    let words = shlex::split(text).ok_or("a quotation mark is not closed")?;
    let mut options = words.iter().flat_map(|word| split_option(word)).peekable();
    let mut policy = ImportedPolicy::default();
    let (mut default, mut count) = (DefaultPolicy::Allow, 0);
    while let Some(option) = options.next() {
        let Some(name) = option.strip_prefix("--") else { continue };
        let value = options.next_if(|value| !value.starts_with("--"));
        let value = value.ok_or_else(|| format!("{option}: its value is missing"))?;
        count += 1;
        match name {
            "policy" => default = parse_default(value)?,
            "allow-host" => policy.allow(value),
            "block-host" | "block-cidr" => policy.deny(value),
            "bypass-host" | "bypass-cidr" => {
                policy.allow(value);
                policy.skip(
                    &format!("{option} {value}"),
                    "connections are never opened; it is allowed",
                );
            }
            "allow-cidr" => policy.skip(
                &format!("{option} {value}"),
                "it takes back a block; private networks are denied by the operator's floor",
            ),
            _ => return Err(format!("{option}: not an option of docker sandbox network proxy")),
        }
    }
    match (count, default) {
        (0, _) => Err("has no option like --allow-host or --policy".to_owned()),
        (_, DefaultPolicy::Deny) => Ok(policy.deny_everything_else()),
        (_, DefaultPolicy::Allow) => {
            policy.allow_out.clear(); // all is allowed
            Ok(policy.allow_everything_else())
        }
    }
}

/// `--option=value` as two words.
fn split_option(word: &str) -> impl Iterator<Item = &str> {
    let split = word.strip_prefix("--").and_then(|_| word.split_once('='));
    let (first, second) = split.map_or((word, None), |(name, value)| (name, Some(value)));
    [Some(first), second].into_iter().flatten()
}

fn parse_default(value: &str) -> Result<DefaultPolicy, String> {
    match value {
        "allow" => Ok(DefaultPolicy::Allow),
        "deny" => Ok(DefaultPolicy::Deny),
        _ => Err(format!("--policy {value}: write allow or deny")),
    }
}
