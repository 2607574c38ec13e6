//! Line 1: chains of IPv6 extension headers. If a chain can be parsed, the header after it is
//! judged.

use super::FixtureCollector;
use policy_testbed::packets::ExtensionHeader;

impl FixtureCollector {
    /// Chains that end in a datagram, and chains that do not.
    pub(super) fn add_extension_headers(&mut self) {
        let (hops, options) =
            (ExtensionHeader::hop_by_hop(), ExtensionHeader::destination_options(1));
        let six = vec![options.clone(); 6];
        let atomic = ExtensionHeader::fragment(0, false, 1);
        self.add_chain("no_rule", "hop-by-hop options", vec![hops.clone()]);
        self.add_chain("no_rule", "destination options", vec![options.clone()]);
        self.add_chain("no_rule", "both", vec![hops, options.clone()]);
        self.add_chain(
            "no_rule",
            "an authentication header",
            vec![ExtensionHeader::authentication()],
        );
        self.add_chain("no_rule", "six headers", six.clone());
        self.add_chain("no_rule", "an atomic fragment", vec![atomic]);

        let deny = "extension_headers";
        self.add_chain(deny, "seven headers", [six, vec![options.clone()]].concat());
        self.add_chain(
            deny,
            "options that do not end",
            vec![options.clone().with_length_field(255)],
        );
        let nested =
            vec![ExtensionHeader::fragment(0, true, 1), ExtensionHeader::fragment(0, true, 2)];
        self.add_chain(deny, "a fragment of a fragment", nested);
        self.add_chain("ip_options", "a routing header", vec![ExtensionHeader::routing()]);
        self.add_chain(
            "ip_options",
            "one behind options",
            vec![options, ExtensionHeader::routing()],
        );
    }

    fn add_chain(&mut self, reason: &'static str, name: &str, chain: Vec<ExtensionHeader>) {
        let datagram =
            chain.into_iter().fold(self.udp_datagram(self.v6), |it, next| it.with_extension(next));
        let (name, frame) = (format!("IPv6 with {name}"), self.source.frame_datagram(&datagram));
        if reason == "no_rule" {
            self.add_passing(name, frame);
        } else {
            self.add_denied(reason, name, frame);
        }
    }
}
