//! Converts the allow-lists of other tools to lists of a policy, and says what it cannot carry over.
//!
//! A format is a file. Each reads its text and hands single entries to [`ImportedPolicy`].

mod docker_options;
mod host_list;
mod imported_entry;
mod nft_sets;
mod no_proxy;
mod srt_settings;

use std::collections::HashSet;

use ipnet::IpNet;

use self::imported_entry::{EntryTarget, ImportedEntry};
use super::{ALL_TRAFFIC, DomainName, DomainPattern};

/// What an import reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// Hosts with or without ports, addresses, CIDRs and URLs, as CI runners document theirs.
    HostList,
    /// The value of `NO_PROXY`.
    NoProxy,
    /// The settings of Anthropic's sandbox runtime, `srt`.
    Srt,
    /// Commands `docker sandbox network proxy`.
    Docker,
    /// Sets of nftables, as `nft -j` lists them.
    Nft,
}

/// The lists of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportedPolicy {
    /// The entries of `allowOut`.
    pub allow_out: Vec<String>,
    /// The entries of `denyOut`.
    pub deny_out: Vec<String>,
    /// What was not carried over, or means something else here.
    pub notes: Vec<String>,
    denied_names: Vec<DomainPattern>,
    has_ports: bool,
}

impl ImportedPolicy {
    /// Reads a text. `deny_sets` are the sets of nftables whose elements are denied.
    ///
    /// # Errors
    /// The text does not have this format. The message says what to write.
    pub fn read(format: ImportFormat, text: &str, deny_sets: &[String]) -> Result<Self, String> {
        match format {
            ImportFormat::HostList => Ok(host_list::read(text)),
            ImportFormat::NoProxy => Ok(no_proxy::read(text)),
            ImportFormat::Srt => srt_settings::read(text),
            ImportFormat::Docker => docker_options::read(text),
            ImportFormat::Nft => nft_sets::read(text, deny_sets),
        }
    }

    /// Allows what another tool allows by this entry.
    fn allow(&mut self, text: &str) {
        match ImportedEntry::parse(text) {
            Ok(entry) if entry.is_local() => self.skip(text, "it is the sandbox itself"),
            Ok(entry) if entry.is_single_label() => {
                self.skip(text, "a name of one label; add it by hand if it is meant");
            }
            Ok(ImportedEntry { target: EntryTarget::Networks(nets), port }) => {
                self.has_ports |= port.is_some();
                self.allow_out.extend(nets.iter().map(shorten));
            }
            Ok(ImportedEntry { target: EntryTarget::Domain(pattern), port }) => match port {
                None | Some(80 | 443) => {
                    self.has_ports |= port.is_some();
                    self.allow_out.push(pattern.to_string());
                }
                Some(port) => self.skip(
                    text,
                    &format!(
                        "a name holds on TCP ports 80 and 443 only; for port {port}, add the \
                              addresses of the server"
                    ),
                ),
            },
            Err(problem) => self.skip(text, &problem),
        }
    }

    /// Denies what another tool denies by this entry.
    fn deny(&mut self, text: &str) {
        match ImportedEntry::parse(text) {
            Ok(ImportedEntry { target: EntryTarget::Networks(nets), port }) => {
                self.has_ports |= port.is_some();
                self.deny_out.extend(nets.iter().map(shorten));
            }
            Ok(ImportedEntry { target: EntryTarget::Domain(pattern), .. }) => {
                self.denied_names.push(pattern);
            }
            Err(problem) => self.skip(text, &problem),
        }
    }

    fn skip(&mut self, what: &str, why: &str) {
        self.notes.push(format!("{what} is not carried over: {why}"));
    }

    /// Completes a policy that allows only what its list has.
    fn deny_everything_else(mut self) -> Self {
        self.deny_out = vec![ALL_TRAFFIC.to_owned()];
        for denied in std::mem::take(&mut self.denied_names) {
            // Everything that no entry allows is denied.
            if let Some(wider) = self.wildcard_over(&denied) {
                let why = format!(
                    "names cannot be denied, and {wider} allows it; write the names that are \
                     needed in place of {wider}"
                );
                self.skip(&denied.to_string(), &why);
            }
        }
        self.finish()
    }

    /// Completes a policy that denies only what its list has.
    fn allow_everything_else(mut self) -> Self {
        for denied in std::mem::take(&mut self.denied_names) {
            self.skip(&denied.to_string(), "names cannot be denied, only addresses");
        }
        self.finish()
    }

    /// Notes what became of ports, and leaves each entry and note once.
    fn finish(mut self) -> Self {
        if self.has_ports {
            let note = "ports are not carried over: a name holds on TCP ports 80 and 443, an address \
                        for every protocol and port";
            self.notes.push(note.to_owned());
        }
        for list in [&mut self.allow_out, &mut self.deny_out, &mut self.notes] {
            let mut seen = HashSet::new();
            list.retain(|entry| seen.insert(entry.clone()));
        }
        self
    }

    /// The entry that allows a name or all of its subdomains though it is not the name's own.
    fn wildcard_over(&self, denied: &DomainPattern) -> Option<String> {
        let patterns = self.allow_out.iter().filter_map(|entry| DomainPattern::parse(entry).ok());
        let name: &DomainName = match denied {
            DomainPattern::Exact(name) | DomainPattern::Subdomains(name) => name,
            DomainPattern::AnyDomain => return None,
        };
        patterns
            .filter(|pattern| !matches!(pattern, DomainPattern::Exact(_)))
            .find(|pattern| pattern.matches(name) || pattern == denied)
            .map(|pattern| pattern.to_string())
    }
}

/// A network as people write it: an address without its length.
fn shorten(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

#[cfg(test)]
mod tests;
