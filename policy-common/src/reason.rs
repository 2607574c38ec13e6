//! Why a packet passed or was dropped. A single table defines each reason's code, label, line of
//! precedence and help text. A code is never reused for another meaning.

/// Number of reason codes that the kernel programs count, starting at 0. Codes from this one on
/// belong to the egress proxy.
pub const KERNEL_REASON_CODES: usize = 32;

/// Reasons with codes below this one let the packet pass; all others drop it.
const FIRST_DENY_CODE: u8 = 16;

macro_rules! define_reasons {
    ($($name:ident = $code:literal, $label:literal, $line:literal, $help:literal;)*) => {
        /// The reason of a verdict. It determines whether the packet passes: see
        /// [`Reason::passes`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $help] $name = $code,)*
        }

        impl Reason {
            /// Every reason, in ascending order of codes.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The reason with this code.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The label in events, metrics and command-line output.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The line of precedence (1 to 9) that decided, or 0 if none did.
            #[must_use]
            pub const fn line(self) -> u8 {
                match self { $(Self::$name => $line,)* }
            }

            /// One sentence that explains the reason to users.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)* }
            }
        }
    };
}

define_reasons! {
    Neighbor = 1, "neighbor", 2, "ARP or IPv6 neighbour discovery that the sandbox needs.";
    Reply = 2, "reply", 3, "Belongs to an inbound connection that was let in.";
    PlatformAllow = 3, "platform_allow", 4, "The operator allows this destination for all sandboxes.";
    AllowOut = 4, "allow_out", 6, "The sandbox's allowOut holds this destination.";
    DnsServer = 5, "dns_server", 6, "The destination is one of the sandbox's DNS servers.";
    NoRule = 6, "no_rule", 9, "No rule denies this destination.";
    Delivered = 7, "delivered", 0, "Delivered to the sandbox.";
    ByName = 8, "by_name", 7, "Handed to the egress proxy, which judges it by the name that it asks for.";
    AllowName = 9, "allow_name", 7, "The sandbox's allowOut holds the name that it asks for.";
    WouldDeny = 10, "would_deny", 8, "The sandbox's denyOut holds this destination, and the sandbox is observed.";

    Malformed = 16, "malformed", 1, "Truncated frame, or a header whose lengths do not fit.";
    UnknownEthertype = 17, "unknown_ethertype", 1, "Neither IPv4, IPv6 nor ARP.";
    Vlan = 18, "vlan", 1, "The frame carries a VLAN tag.";
    SpoofedMac = 19, "spoofed_mac", 1, "The source MAC is not the sandbox's.";
    SpoofedIp = 20, "spoofed_ip", 1, "The source address is not the sandbox's.";
    IpOptions = 21, "ip_options", 1, "IPv4 options or an IPv6 routing header can change the destination.";
    ExtensionHeaders = 22, "extension_headers", 1, "The chain of IPv6 extension headers cannot be parsed.";
    Fragment = 23, "fragment", 1, "A fragment whose first was not let through, or one that hides its transport header.";
    NeighborSpoof = 24, "neighbor_spoof", 2, "ARP or IPv6 neighbour discovery about addresses that are not the sandbox's.";
    PlatformDeny = 25, "platform_deny", 5, "The operator denies this destination for all sandboxes.";
    DenyOut = 26, "deny_out", 8, "The sandbox's denyOut holds this destination.";
    NoPolicy = 27, "no_policy", 0, "The interface has no policy yet.";
    InboundRefused = 28, "inbound_refused", 0, "New connections towards the sandbox are let in from the host only.";
    ProxyUnavailable = 29, "proxy_unavailable", 7, "The egress proxy has to decide or to carry this connection, and it is not there.";
    ForeignError = 30, "foreign_error", 1, "An ICMP error about a packet that was not sent to the sandbox, or an ICMP redirect.";
    Guard = 31, "guard", 1, "Came past the programs at the interface, and was dropped by the guard behind them.";

    NameNotAllowed = 32, "name_not_allowed", 7, "No domain of the sandbox's allowOut matches the name that it asks for.";
    InvalidName = 33, "invalid_name", 7, "What it asks for is not a valid host name.";
    NameConflict = 34, "name_conflict", 7, "One request asks for several names.";
    NotJudgeable = 35, "not_judgeable", 7, "Neither a TLS ClientHello nor an HTTP/1 request that can be judged by its name.";
    NameUnresolved = 36, "name_unresolved", 7, "The agent's resolvers know no address of the name.";
    HostAddress = 37, "host_address", 5, "The name leads to the host itself.";
    Unreachable = 38, "unreachable", 0, "No address of the destination accepted the connection.";
    EgressProxyFailed = 39, "egress_proxy_failed", 0, "The sandbox's egressProxy did not make the connection.";
    TooManyConnections = 40, "too_many_connections", 0, "The sandbox has as many connections through the egress proxy as it may have.";
    ProxyTimeout = 41, "proxy_timeout", 0, "The sandbox did not say in time what it asks for.";
    BadResponse = 42, "bad_response", 0, "What the server answered is no HTTP/1 response that could be passed on.";
    ServerBrokeOff = 43, "server_broke_off", 0, "The server took the connection and ended it before it had answered the request.";
    SecretUnknown = 44, "secret_unknown", 0, "A header of network.rules needs a secret that does not exist, or whose value no header can hold.";
    HostMismatch = 45, "host_mismatch", 7, "In a connection to a name with network.rules, a request asks for another host.";
    OriginNotVerified = 46, "origin_not_verified", 0, "The server of a name with network.rules has a certificate that the agent does not trust.";
}

/// One bit for the code of each reason that lets the packet pass.
const PASSING_CODES: u16 = {
    let (mut codes, mut index) = (0, 0);
    while index < Reason::ALL.len() {
        let code = Reason::ALL[index] as u8;
        if code < FIRST_DENY_CODE {
            codes |= 1 << code;
        }
        index += 1;
    }
    codes
};

/// Whether a packet with this reason code passes. A code without a reason drops it.
#[inline(always)]
#[must_use]
pub const fn code_passes(code: u8) -> bool {
    code < FIRST_DENY_CODE && PASSING_CODES >> code & 1 != 0
}

impl Reason {
    /// The reasons that the kernel programs count.
    pub fn kernel_counted() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|reason| (*reason as usize) < KERNEL_REASON_CODES)
    }

    /// Whether the packet passes.
    #[inline(always)]
    #[must_use]
    pub const fn passes(self) -> bool {
        code_passes(self as u8)
    }

    /// Whether a denial with this reason gets a reply if `deny_action` is `reject`. Packets that
    /// cannot be judged (line 1), neighbour discovery (line 2) and packets to the sandbox are
    /// dropped silently.
    #[inline(always)]
    #[must_use]
    pub const fn is_rejectable(self) -> bool {
        matches!(self, Self::PlatformDeny | Self::DenyOut | Self::NoPolicy | Self::ProxyUnavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_round_trip() {
        for pair in Reason::ALL.windows(2) {
            assert!((pair[0] as u8) < (pair[1] as u8));
        }
        for reason in Reason::ALL {
            assert_ne!(*reason as u8, 0);
            assert!(!reason.is_rejectable() || (*reason as usize) < KERNEL_REASON_CODES);
            assert_eq!(Reason::from_code(*reason as u8), Some(*reason));
            assert!(!(reason.passes() && reason.is_rejectable()));
        }
        assert_eq!(Reason::from_code(0), None);
    }

    #[test]
    fn a_code_without_a_reason_does_not_pass() {
        for code in 0..=u8::MAX {
            let reason = Reason::from_code(code);
            assert_eq!(code_passes(code), reason.is_some() && code < FIRST_DENY_CODE, "{code}");
        }
        assert!(Reason::Neighbor.passes() && !Reason::Malformed.passes());
    }
}
