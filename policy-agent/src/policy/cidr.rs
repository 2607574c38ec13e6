//! An entry of an address list, and the addresses it covers.
//!
//! An entry is an [`IpNet`] with its host bits cleared. `0.0.0.0/0` means all addresses of *both*
//! families. There is no syntax for all of IPv4 only, so the prefix is unambiguous. Only
//! [`split_families`] and [`covering_length`] depend on this.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::entry_hints;

/// The entry that means all addresses of both families.
pub const ALL_TRAFFIC: &str = "0.0.0.0/0";

/// Number of bits before the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2).
const IPV4_MAPPED_BITS: u8 = 96;

/// Parses an IP address or CIDR. The error says what to write instead.
pub(super) fn parse_cidr(entry: &str) -> Result<IpNet, String> {
    parse_cidr_with_hint(entry, entry_hints::ADDRESSES_ONLY_HINT)
}

/// The same. `about_names` explains why a name is not allowed, if the entry is one.
fn parse_cidr_with_hint(entry: &str, about_names: &str) -> Result<IpNet, String> {
    parse_network(entry)
        .map_err(|problem| entry_hints::address_entry_hint(entry, about_names).unwrap_or(problem))
}

fn parse_network(entry: &str) -> Result<IpNet, String> {
    check_spelling(entry)?;
    let (address, length) = match entry.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (entry, None),
    };
    let address: IpAddr = address.parse().map_err(|_| describe_bad_address(address))?;
    let length = length.map(|text| parse_prefix_length(text, address)).transpose()?;
    let net = match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => ipv4_of_mapped(v6, length)?,
        _ => IpNet::new(address, length.unwrap_or(address_bits(address)))
            .map_err(|e| e.to_string())?,
    };
    if net.prefix_len() == 0 && !address.is_unspecified() {
        return Err(format!("/0 covers everything; if you mean that, write {ALL_TRAFFIC} or ::/0"));
    }
    Ok(net.trunc())
}

/// Parses an entry of a sandbox's list, where the unspecified address is only allowed in /0.
/// `about_names` explains why a name is not allowed.
pub(super) fn parse_sandbox_cidr(entry: &str, about_names: &str) -> Result<IpNet, String> {
    let net = parse_cidr_with_hint(entry, about_names)?;
    if net.network().is_unspecified() && net.prefix_len() != 0 {
        return Err(format!(
            "covers the unspecified address {}; only {ALL_TRAFFIC} (all traffic) and ::/0 (all \
             IPv6) may",
            net.network()
        ));
    }
    Ok(net)
}

/// Parses a single address without a prefix length. `about_names` explains why a name is not
/// allowed.
pub(super) fn parse_single_address(entry: &str, about_names: &str) -> Result<IpAddr, String> {
    let net = parse_sandbox_cidr(entry, about_names)?;
    if entry.contains('/') {
        return Err("write a single IP address, without a prefix length".to_owned());
    }
    Ok(net.addr())
}

/// Whether an entry is meant as an address, so that an error about it should refer to addresses.
pub(super) fn looks_like_address(entry: &str) -> bool {
    let numeric = entry.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    numeric || entry.contains([':', '/', '%', '[', ']'])
}

fn check_spelling(entry: &str) -> Result<(), String> {
    let problem = if entry.is_empty() {
        "empty; remove it"
    } else if entry.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "remove the white space or control character"
    } else if entry.contains("://") {
        "write the host alone, without a scheme, port or path"
    } else if entry.contains('%') {
        "a zone (%…) has no meaning here; write the address alone"
    } else if entry.contains(['[', ']']) {
        "write an IPv6 address without brackets and port"
    } else {
        return Ok(());
    };
    Err(problem.to_owned())
}

/// Explains why the text is not an address.
fn describe_bad_address(text: &str) -> String {
    let numeric = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let part_with_zero = |part: &str| part.len() > 1 && part.starts_with('0');
    if is_sdk_constant(text) {
        format!("write {ALL_TRAFFIC}, which is what the SDKs' ALL_TRAFFIC stands for")
    } else if text.matches(':').count() == 1 {
        "write it without a port".to_owned()
    } else if !text.contains(':') && text.contains(char::is_alphabetic) {
        "write a name alone, without a path or prefix length".to_owned()
    } else if text.bytes().all(numeric) && text.split('.').any(part_with_zero) {
        "write the numbers without leading zeros (some programs read them as octal)".to_owned()
    } else if text.bytes().all(|byte| numeric(byte) || byte == b'-') && text.contains('-') {
        "write a range as CIDRs, like 10.0.0.0/24".to_owned()
    } else {
        "not an IP address or CIDR; write it like 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"
            .to_owned()
    }
}

fn parse_prefix_length(text: &str, address: IpAddr) -> Result<u8, String> {
    let longest = address_bits(address);
    // Digits only: `u8::from_str` would accept a sign.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    match text.parse::<u8>() {
        Ok(length) if plain && !padded && length <= longest => Ok(length),
        _ if text.contains('.') => {
            Err("write a prefix length in place of a netmask, like /24".to_owned())
        }
        _ => Err(format!("the prefix length after / is a number from 0 to {longest}")),
    }
}

/// Converts an IPv4-mapped entry to IPv4.
fn ipv4_of_mapped(v6: Ipv6Addr, length: Option<u8>) -> Result<IpNet, String> {
    let length = length.unwrap_or(128);
    // With 96 bits or fewer the prefix would cover all of IPv4 or more, which must not happen by
    // accident.
    if length <= IPV4_MAPPED_BITS {
        return Err(format!(
            "an IPv4-mapped prefix is at least 97 bits long; write the IPv4 CIDR, or \
             {ALL_TRAFFIC} if you mean all traffic"
        ));
    }
    let v4 = IpAddr::V6(v6).to_canonical();
    IpNet::new(v4, length - IPV4_MAPPED_BITS).map_err(|error| error.to_string())
}

const fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The prefixes that an entry covers, by family.
pub(super) fn split_families(net: IpNet) -> (Option<Ipv4Net>, Option<Ipv6Net>) {
    match net {
        IpNet::V4(all) if all.prefix_len() == 0 => (Some(all), Some(Ipv6Net::default())),
        IpNet::V4(v4) => (Some(v4), None),
        IpNet::V6(v6) => (None, Some(v6)),
    }
}

/// The length of the entry's prefix, if the entry covers the address.
pub(super) fn covering_length(net: &IpNet, address: IpAddr) -> Option<u8> {
    let covers = is_all_traffic(net) || net.contains(&address);
    covers.then_some(net.prefix_len())
}

/// Whether an entry is the SDKs' name for [`ALL_TRAFFIC`], which would otherwise be a valid domain.
pub(super) const fn is_sdk_constant(text: &str) -> bool {
    text.eq_ignore_ascii_case("ALL_TRAFFIC")
}

/// Whether an entry is [`ALL_TRAFFIC`].
pub(super) const fn is_all_traffic(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(all) if all.prefix_len() == 0)
}

#[cfg(test)]
mod tests;
