//! The Ethernet address of a sandbox.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ValidationError;

/// A unicast Ethernet address that is not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The address with these bytes, in transmission order. `None` if it is not that of one host.
    #[must_use]
    pub fn from_octets(octets: [u8; 6]) -> Option<Self> {
        let is_unicast = octets != [0; 6] && octets[0] & 1 == 0;
        is_unicast.then_some(Self(octets))
    }

    /// The six bytes in transmission order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        let refuse = |problem| ValidationError::about_entry("mac", text, problem);
        let octets = parse_octets(text)
            .ok_or_else(|| refuse("write six hexadecimal bytes, like 02:fc:00:00:00:05"))?;
        Self::from_octets(octets).ok_or_else(|| refuse("not the address of one host"))
    }
}

fn parse_octets(text: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts.next()?;
        // `from_str_radix` would accept a sign.
        if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(octets)
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    /// The error contains only the problem. The position in the JSON text provides the field.
    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error: ValidationError| format!("{text:?}: {}", error.problem))
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_hosts_address() {
        let mac: MacAddress = "02:FC:00:00:00:05".parse().expect("good");
        assert_eq!(mac.octets(), [2, 0xfc, 0, 0, 0, 5]);
        assert_eq!(mac.to_string(), "02:fc:00:00:00:05");
        for bad in [
            "",
            "02:fc:00:00:00",
            "02:fc:00:00:00:05:06",
            "02-fc-00-00-00-05",
            "2:fc:0:0:0:5",
            "+2:fc:00:00:00:05",
            "02:fc:00:00:00:0g",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad:?}");
        }
    }
}
