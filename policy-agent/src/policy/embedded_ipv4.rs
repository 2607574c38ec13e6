//! IPv4 addresses embedded in IPv6 addresses, which line 5 of the precedence also checks.
//!
//! | form | prefix | bits of the IPv4 address |
//! |---|---|---|
//! | IPv4-mapped (RFC 4291, 2.5.5.2) | `::ffff:0:0/96` | 96–127 |
//! | IPv4-compatible (RFC 4291, 2.5.5.1) | `::/96` | 96–127 |
//! | NAT64 (RFC 6052, 2.1) | `64:ff9b::/96` | 96–127 |
//! | 6to4 (RFC 3056, 2) | `2002::/16` | 16–47 |
//! | Teredo server (RFC 4380, 4) | `2001::/32` | 32–63 |
//! | Teredo client | `2001::/32` | 96–127, every bit inverted |
//!
//! All but the last correspond to IPv6 prefixes, so they are compiled into the IPv6 table. For the
//! last, the kernel program looks up the client in the IPv4 table.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// A form in which the embedded address follows a fixed prefix.
#[derive(Clone, Copy)]
struct EmbeddingForm {
    /// The fixed prefix. All bits after `prefix_length` are zero.
    prefix: u128,
    /// Length of the prefix, and offset of the IPv4 address.
    prefix_length: u8,
}

const TEREDO_FORM: EmbeddingForm = EmbeddingForm { prefix: 0x2001_0000 << 96, prefix_length: 32 };

const EMBEDDING_FORMS: [EmbeddingForm; 5] = [
    EmbeddingForm { prefix: 0xffff << 32, prefix_length: 96 },
    EmbeddingForm { prefix: 0, prefix_length: 96 },
    EmbeddingForm { prefix: 0x0064_ff9b << 96, prefix_length: 96 },
    EmbeddingForm { prefix: 0x2002 << 112, prefix_length: 16 },
    TEREDO_FORM,
];

impl EmbeddingForm {
    /// Shifts an IPv4 address to its position.
    fn shift_ipv4(self, v4: Ipv4Addr) -> u128 {
        u128::from(v4.to_bits()) << (96 - self.prefix_length)
    }

    /// The IPv4 address embedded in an address of this form.
    fn extract_ipv4(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = address.to_bits();
        if bits >> (128 - self.prefix_length) != self.prefix >> (128 - self.prefix_length) {
            return None;
        }
        let low = (bits >> (96 - self.prefix_length)) & u128::from(u32::MAX);
        u32::try_from(low).ok().map(Ipv4Addr::from_bits)
    }
}

/// The IPv6 prefixes that embed an IPv4 prefix.
pub(super) fn embedding_prefixes(net: Ipv4Net) -> impl Iterator<Item = Ipv6Net> {
    EMBEDDING_FORMS.into_iter().filter_map(move |form| {
        let address = Ipv6Addr::from_bits(form.prefix | form.shift_ipv4(net.network()));
        // Always valid: at most 96 + 32.
        Ipv6Net::new(address, form.prefix_length + net.prefix_len()).ok()
    })
}

/// The IPv4 address embedded in an IPv6 address, and its bit offset. The fixed prefixes do not
/// overlap, so there is at most one.
pub(super) fn embedded_ipv4(address: Ipv6Addr) -> Option<(Ipv4Addr, u8)> {
    EMBEDDING_FORMS
        .into_iter()
        .find_map(|form| Some((form.extract_ipv4(address)?, form.prefix_length)))
}

/// The client in a Teredo address.
pub(super) fn teredo_client(address: Ipv6Addr) -> Option<Ipv4Addr> {
    TEREDO_FORM.extract_ipv4(address)?;
    let [.., a, b, c, d] = address.octets();
    Some(Ipv4Addr::new(!a, !b, !c, !d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_every_form() {
        let listed = |net: &str| {
            let net: Ipv4Net = net.parse().expect(net);
            embedding_prefixes(net).map(|net| net.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            listed("169.254.0.0/16"),
            [
                "::ffff:169.254.0.0/112",
                "::a9fe:0/112",
                "64:ff9b::a9fe:0/112",
                "2002:a9fe::/32",
                "2001:0:a9fe::/48",
            ]
        );
        assert_eq!(
            listed("255.255.255.255/32"),
            [
                "::ffff:255.255.255.255/128",
                "::ffff:ffff/128",
                "64:ff9b::ffff:ffff/128",
                "2002:ffff:ffff::/48",
                "2001:0:ffff:ffff::/64",
            ]
        );
    }

    #[test]
    fn addresses_of_every_form() {
        let metadata = Ipv4Addr::new(169, 254, 169, 254);
        for (address, expected) in [
            ("::ffff:169.254.169.254", Some((metadata, 96))),
            ("::169.254.169.254", Some((metadata, 96))),
            ("64:ff9b::169.254.169.254", Some((metadata, 96))),
            ("2002:a9fe:a9fe:1234::5", Some((metadata, 16))),
            ("2001:0:a9fe:a9fe:8000:63bf:3fff:fdd2", Some((metadata, 32))),
            ("64:ff9b:1::a9fe:a9fe", None),
            ("2001:db8::a9fe:a9fe", None),
            ("2001:1:a9fe:a9fe::", None),
            ("fe80::a9fe:a9fe", None),
        ] {
            assert_eq!(embedded_ipv4(address.parse().expect(address)), expected, "{address}");
        }
    }

    #[test]
    fn the_example_of_rfc_4380() {
        let address = "2001:0:4136:e378:8000:63bf:3fff:fdd2".parse().expect("an address");
        assert_eq!(teredo_client(address), Some(Ipv4Addr::new(192, 0, 2, 45)));
        assert_eq!(embedded_ipv4(address), Some((Ipv4Addr::new(65, 54, 227, 120), 32)));
        assert_eq!(teredo_client("2001:db8::1".parse().expect("an address")), None);
    }
}
