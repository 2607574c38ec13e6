//! Generates `docs/reasons.md`: every reason of the table in `policy-common`, with advice for
//! operators. Also generates `docs/troubleshooting.md`: what allows what was denied.

use std::{collections::BTreeMap, fmt::Write as _};

use policy_common::reason::Reason;

use super::is_current;
use crate::policy::AllowHint;

const HEAD: &str = "\
# Reasons

<!-- Generated from the table of reasons: UPDATE_DOCS=1 cargo test --lib -- docs:: -->

Every packet and every proxied connection gets one reason. Events, counters, metrics, `explain` and the
answers of the egress proxy use the same label. A number never gets another meaning.

- **Line** is the line of [precedence](policy.md#precedence-the-first-line-that-matches-decides) that
  decides; \"–\" means that no line does.
- **Raised by**: `from_sandbox` and `to_sandbox` are programs in the kernel. The redirect is the program
  that gives a connection to the egress proxy, which is part of the agent. The gateway raises no reasons: it
  answers with an [HTTP status](public-urls.md#answers-of-the-gateway).
- **Counted as**: the kernel counts packets, the egress proxy counts connections and requests. Both are
  in `policy_denials_total`: [metrics.md](metrics.md).
- **Answered**: with `deny_action = \"reject\"` the kernel answers the denied packet with a TCP reset or an
  ICMP error. It drops all other denied packets silently. The egress proxy answers with a TLS alert, an HTTP
  status or a reset: [policy.md](policy.md#refusals).
- With `mode = \"xdp\"`, a program in XDP raises the same reasons earlier, for packets that are dropped
  silently.

";

const ALLOWED: &str = "\
| No. | reason | line | raised by | direction | counted as |
|---:|---|---|---|---|---|
";
const DENIED: &str = "\
| No. | reason | line | raised by | direction | counted as | answered |
|---:|---|---|---|---|---|---|
";

/// Who reports a reason, and about which packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The kernel, about packets from the sandbox.
    Kernel,
    /// The kernel, about packets to the sandbox.
    KernelInbound,
    /// The kernel, about packets in both directions.
    KernelBoth,
    /// The kernel and the egress proxy.
    Both,
    /// The kernel, while it redirects a connection to the egress proxy.
    Redirect,
    /// The kernel, while it redirects a connection, and the egress proxy.
    RedirectAndProxy,
    /// The egress proxy.
    Proxy,
    /// The guard behind TC.
    Guard,
}

impl Source {
    const fn raised_by(self) -> &'static str {
        match self {
            Self::Kernel => "`from_sandbox`",
            Self::KernelInbound => "`to_sandbox`",
            Self::KernelBoth => "`from_sandbox`, `to_sandbox`",
            Self::Both => "`from_sandbox`, egress proxy",
            Self::Redirect => "redirect",
            Self::RedirectAndProxy => "redirect, egress proxy",
            Self::Proxy => "egress proxy",
            Self::Guard => "guard",
        }
    }

    const fn direction(self) -> &'static str {
        match self {
            Self::KernelInbound => "to the sandbox",
            Self::KernelBoth => "both",
            _ => "from the sandbox",
        }
    }

    const fn counted_as(self) -> &'static str {
        match self {
            Self::Proxy => "connections",
            Self::Both | Self::RedirectAndProxy => "packets, connections",
            _ => "packets",
        }
    }
}

/// Source and advice by the reason's label. The advice may be empty.
const ADVICE: [(&str, Source, &str); 41] = [
    ("neighbor", Source::Kernel, ""),
    (
        "reply",
        Source::Kernel,
        "`inbound = \"host\"` lets only the host open connections to sandboxes.",
    ),
    (
        "platform_allow",
        Source::Kernel,
        "Remove the entry from `platform_allow` if sandboxes should not reach it.",
    ),
    ("allow_out", Source::Both, ""),
    ("dns_server", Source::Both, "`dnsServers: []` allows no DNS server."),
    (
        "no_rule",
        Source::Both,
        "`denyOut: [\"0.0.0.0/0\"]` denies every destination that `allowOut` does not hold.",
    ),
    ("delivered", Source::KernelInbound, ""),
    (
        "by_name",
        Source::Redirect,
        "Look for the egress proxy's verdict, which follows with another reason.",
    ),
    ("allow_name", Source::Proxy, ""),
    (
        "would_deny",
        Source::Kernel,
        "`suggest` prints a policy that allows what was observed; `observe ID --end` enforces the policy. Events and the \
         record have the verdict `would_deny`, and the reason that would deny it.",
    ),
    (
        "malformed",
        Source::Kernel,
        "A few are harmless. Many from one sandbox mean an attack or a broken driver in the guest. If a guest with \
         checksum offload loses all its traffic, report it with the kernel's version.",
    ),
    (
        "unknown_ethertype",
        Source::Kernel,
        "Usually nothing: guests send LLDP and similar frames on their own.",
    ),
    (
        "vlan",
        Source::Kernel,
        "Configure the guest without VLANs. A policy cannot judge tagged frames.",
    ),
    (
        "spoofed_mac",
        Source::Kernel,
        "If the workload is legitimate, correct `mac` in the sandbox or leave it out. A bridge inside a sandbox \
         sends frames with other MACs: use routing there instead.",
    ),
    (
        "spoofed_ip",
        Source::Kernel,
        "If the workload is legitimate, add its address to `addresses`. DHCP, SLAAC and a container network inside \
         the sandbox use addresses that the agent does not know: use static addresses, or NAT in the guest.",
    ),
    (
        "ip_options",
        Source::Kernel,
        "Nothing: no ordinary program sends them, and no policy allows them.",
    ),
    (
        "extension_headers",
        Source::Kernel,
        "Nothing: no ordinary program sends such chains, and no policy allows them.",
    ),
    (
        "fragment",
        Source::Kernel,
        "If the destination is allowed, configure the workload to send smaller datagrams or to use TCP. TCP \
         fragments to a port that is judged by name never pass.",
    ),
    (
        "neighbor_spoof",
        Source::Kernel,
        "If the workload is legitimate, add its address to `addresses`, and also its link-local address if that does \
         not follow from the MAC. Otherwise the sandbox impersonates a neighbour.",
    ),
    (
        "platform_deny",
        Source::Both,
        "The sandbox cannot change this. If all sandboxes need the destination, for example a DNS server on the \
         host, add it to `platform_allow`.",
    ),
    (
        "deny_out",
        Source::Both,
        "If the sandbox needs the destination, add its address to `allowOut`, or its name for ports 80 and 443.",
    ),
    (
        "no_policy",
        Source::KernelBoth,
        "Read the agent's log: the interface is attached, but its policy could not be published. For an interface of \
         `[[interfaces]]` without a sandbox, this is expected.",
    ),
    (
        "inbound_refused",
        Source::KernelInbound,
        "`inbound = \"any\"` also lets others than the host open connections to sandboxes. It applies to all \
         sandboxes.",
    ),
    (
        "proxy_unavailable",
        Source::RedirectAndProxy,
        "Start the agent if it is not running. If it is running, look at the sandbox's status: its interface may \
         have become a port of a bridge.",
    ),
    ("foreign_error", Source::Kernel, "Nothing: no ordinary program sends such messages."),
    (
        "guard",
        Source::Guard,
        "While an interface is created again, a few packets are normal. Many mean that the sandbox makes the kernel \
         skip TC: take `CAP_NET_ADMIN` from it. If an allowed sandbox loses all its traffic, another program changes \
         packets' marks before TC ends: choose another `guard_mark`.",
    ),
    (
        "name_not_allowed",
        Source::Proxy,
        "If the sandbox needs the name, add it to `allowOut`. `*.example.com` does not hold `example.com` itself.",
    ),
    (
        "invalid_name",
        Source::Proxy,
        "Fix the client. No pattern matches such a name, not even `*`.",
    ),
    (
        "name_conflict",
        Source::Proxy,
        "Fix the client: it has to send one Host, and a target that agrees with it. If the client is not faulty, it \
         tries to hide a name.",
    ),
    (
        "not_judgeable",
        Source::Proxy,
        "With domain rules, ports 80 and 443 carry only HTTP/1 and TLS. Allow the server by its address, or use \
         another port.",
    ),
    (
        "name_unresolved",
        Source::Proxy,
        "Check that the name exists and that the servers in `[proxy] resolvers` answer.",
    ),
    (
        "host_address",
        Source::Proxy,
        "If sandboxes need this service of the host, add its address to `platform_allow`.",
    ),
    (
        "unreachable",
        Source::Proxy,
        "Check the server, and the host's routes, firewall and free ports (`net.ipv4.tcp_tw_reuse`, see `doctor`).",
    ),
    (
        "egress_proxy_failed",
        Source::Proxy,
        "Check the SOCKS5 proxy in the sandbox's `egressProxy`: its address, username, password and certificate.",
    ),
    (
        "too_many_connections",
        Source::Proxy,
        "If the workload is legitimate, raise `[proxy] max_connections_per_sandbox`. If all sandboxes get this \
         reason, raise the agent's limit of file descriptors (`LimitNOFILE`).",
    ),
    (
        "proxy_timeout",
        Source::Proxy,
        "Fix the client: it has 10 seconds to send its ClientHello or the head of its request.",
    ),
    (
        "bad_response",
        Source::Proxy,
        "Fix the server, or allow it by its address: the proxy then does not read its answers.",
    ),
    (
        "server_broke_off",
        Source::Proxy,
        "Repeat the request. If it fails again, look at the server's log.",
    ),
    (
        "secret_unknown",
        Source::Proxy,
        "Create the secret that the answer (502) names, or correct the name in `network.rules`. A value with line \
         breaks cannot be sent: [rules.md](rules.md).",
    ),
    (
        "host_mismatch",
        Source::Proxy,
        "Send requests for another host in a connection of their own. Clients do that when they get the answer \
         (421); one that goes on is broken, or probes.",
    ),
    (
        "origin_not_verified",
        Source::Proxy,
        "Read in the answer (502) which certificate it is and what is wrong with it. Renew it at the server, or add \
         its authority to `rules.extra_roots`.",
    ),
];

fn page() -> String {
    let advice: BTreeMap<_, _> =
        ADVICE.iter().map(|(label, source, fix)| (*label, (*source, *fix))).collect();
    assert_eq!(advice.len(), ADVICE.len(), "a label stands twice");
    let known: BTreeMap<_, _> = Reason::ALL.iter().map(|reason| (reason.label(), ())).collect();
    let unknown: Vec<_> = advice.keys().filter(|label| !known.contains_key(*label)).collect();
    assert!(unknown.is_empty(), "no reasons any more: {unknown:?}");
    let advice_for = |reason: &Reason| {
        advice
            .get(reason.label())
            .copied()
            .unwrap_or_else(|| panic!("no advice for {}", reason.label()))
    };
    let mut page = HEAD.to_owned();
    for (title, head, passes) in [("Allowed", ALLOWED, true), ("Denied", DENIED, false)] {
        let reasons = || Reason::ALL.iter().filter(|reason| reason.passes() == passes);
        write!(page, "## {title}\n\n{head}").expect("a String");
        for reason in reasons() {
            page += &row(*reason, advice_for(reason).0);
        }
        for reason in reasons() {
            let (_, what_to_do) = advice_for(reason);
            write!(page, "\n### {}\n\n{}\n", reason.label(), reason.help()).expect("a String");
            if !what_to_do.is_empty() {
                write!(page, "\n*What to do*: {what_to_do}\n").expect("a String");
            }
        }
        page += if passes { "\n" } else { "" };
    }
    page
}

fn row(reason: Reason, source: Source) -> String {
    let line = match reason.line() {
        0 => "–".to_owned(),
        line => line.to_string(),
    };
    let answered = match (reason.passes(), reason.is_rejectable()) {
        (true, _) => "",
        (false, true) => " yes |",
        (false, false) => " |",
    };
    let (label, number) = (reason.label(), reason as u8);
    let (raised_by, direction, counted) =
        (source.raised_by(), source.direction(), source.counted_as());
    format!(
        "| {number} | [`{label}`](#{label}) | {line} | {raised_by} | {direction} | {counted} |{answered}\n"
    )
}

const TROUBLESHOOTING_HEAD: &str = "\
# Troubleshooting denials

<!-- Generated from the table of reasons: UPDATE_DOCS=1 cargo test --lib -- docs:: -->

A program in a sandbox cannot connect. Three commands on the host say why, and allow it:

```sh
policy-agent denials web --since 10m       # what was denied, why, and what would allow it
policy-agent allow web registry.example.com
policy-agent explain web https://registry.example.com
```

- **Nothing in `denials`**: the agent did not deny it. `policy-agent events --sandbox web --follow --all` shows whether
  packets arrive at all, `policy-agent doctor` whether the host forwards them, and `policy-agent doctor ID` whether the
  sandbox is enforced as its policy says.
- **From inside**, a refused request on port 80 gets an answer that says the same, and a refused name on port 443 the
  TLS alert `access_denied`.
- **Put what should stay into the sandbox's file**: the next `apply` replaces the lists. `allow --for 1h` is for trying.

| denied by | means | ALLOW WITH | what to do |
|---|---|---|---|
";

/// A row for each reason that denies.
fn troubleshooting_page() -> String {
    let advice: BTreeMap<_, _> = ADVICE.iter().map(|(label, _, fix)| (*label, *fix)).collect();
    let sandbox = "web".parse().expect("an ID");
    let mut page = TROUBLESHOOTING_HEAD.to_owned();
    for reason in Reason::ALL.iter().filter(|reason| !reason.passes()) {
        let (label, help) = (reason.label(), reason.help());
        let address = Some([203, 0, 113, 7].into());
        let hint = AllowHint::for_denial(*reason, address, Some("registry.example.com"));
        let hint = match hint {
            Some(hint) if hint.entry().is_some() => format!("`{}`", hint.advice(&sandbox)),
            Some(hint) => hint.advice(&sandbox),
            None => "–".to_owned(),
        };
        let what_to_do = advice[label];
        writeln!(page, "| [`{label}`](reasons.md#{label}) | {help} | {hint} | {what_to_do} |")
            .expect("a String");
    }
    page
}

#[test]
fn the_page_about_denials_is_current() {
    is_current("troubleshooting.md", &troubleshooting_page());
}

#[test]
fn the_page_of_reasons_is_current() {
    is_current("reasons.md", &page());
}
