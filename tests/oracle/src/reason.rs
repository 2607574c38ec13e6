//! The reasons that the oracle gives.

macro_rules! define_reasons {
    ($($name:ident $label:literal $verdict:ident,)*) => {
        /// Why a frame passes or is dropped. The kernel's reason of the same label is the same.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum OracleReason {
            $(#[doc = $label] $name,)*
        }

        impl OracleReason {
            /// The label that docs/reasons.md lists.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// Whether the frame passes.
            #[must_use]
            pub const fn passes(self) -> bool {
                match self { $(Self::$name => define_reasons!($verdict),)* }
            }
        }
    };
    (pass) => { true };
    (drop) => { false };
}

define_reasons! {
    Neighbor "neighbor" pass,
    Reply "reply" pass,
    PlatformAllow "platform_allow" pass,
    AllowOut "allow_out" pass,
    DnsServer "dns_server" pass,
    NoRule "no_rule" pass,
    Delivered "delivered" pass,
    Malformed "malformed" drop,
    UnknownEthertype "unknown_ethertype" drop,
    Vlan "vlan" drop,
    SpoofedMac "spoofed_mac" drop,
    SpoofedIp "spoofed_ip" drop,
    IpOptions "ip_options" drop,
    ExtensionHeaders "extension_headers" drop,
    Fragment "fragment" drop,
    NeighborSpoof "neighbor_spoof" drop,
    ForeignError "foreign_error" drop,
    NoPolicy "no_policy" drop,
    PlatformDeny "platform_deny" drop,
    ProxyUnavailable "proxy_unavailable" drop,
    DenyOut "deny_out" drop,
    InboundRefused "inbound_refused" drop,
}
