//! Domain rules for any placement of the sandbox's interface: in another network namespace, and
//! behind a tap device.

use std::net::IpAddr;

use policy_testbed::{
    named_internet::{curl::CurlCommand, raw_http::RawHttpConnection},
    network::{namespaced_sandbox::NamespacedSandbox, tap_device::VirtioHeader},
    test_servers::HTTP_PORT,
    testbed::{OrFail as _, RESOLVER_CONFIG, SharedTestbed, parse_ip},
    wait::eventually,
};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

#[test]
fn sandboxes_in_other_namespaces_have_names_of_their_own() {
    let stage = TESTBED.testbed();
    let names = stage.named_internet();
    let (one, other) = (stage.add_site("slot-one.example"), stage.add_site("slot-two.example"));
    let slots =
        ["slotone", "slottwo"].map(|id| NamespacedSandbox::build(id).or_fail("building a slot"));
    for (slot, site) in slots.iter().zip([&one, &other]) {
        let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [site.name] });
        let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
        let answer =
            stage.request("PUT", &path, &slot.sandbox_spec(&json!({ "network": network })));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    // Each namespace has its own internet without the site, so only the agent can reach it.
    let towards: [IpAddr; 2] = [parse_ip("203.0.113.10"), parse_ip("2001:db8:1::1")];
    for (slot, (own, foreign)) in slots.iter().zip([(&one, &other), (&other, &one)]) {
        let inside = &slot.sandbox.namespace;
        for to in towards {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{}/", own.name);
                let fetched =
                    CurlCommand::new(inside, names.client_files(), &url).resolving_to(to).run();
                assert!(own.served_page(&fetched.page_json()), "{fetched:?}");
            }
            let url = format!("https://{}/", foreign.name);
            CurlCommand::new(inside, names.client_files(), &url)
                .resolving_to(to)
                .run()
                .assert_denied_by_alert();
            let mut talk =
                RawHttpConnection::connect(inside, (to, HTTP_PORT).into()).or_fail("connecting");
            talk.send_get(&foreign.name).read_response().assert_refused(403, "name_not_allowed");
        }
    }
}

/// A bridge takes the frames before they can be redirected to the proxy.
#[test]
fn on_a_bridge_port_names_are_refused_with_a_reason() {
    let stage = TESTBED.testbed();
    let sandbox = stage.add_sandbox();
    stage.add_site("bridged.example");
    let host = &stage.network.host;
    let (bridge, port) = ("br7", &sandbox.interface);
    host.ip_batch(&format!("link add {bridge} type bridge")).or_fail("a bridge");
    let plug = format!("link set {port} master {bridge}");
    let unplug = format!("link set {port} nomaster");
    host.ip_batch(&plug).or_fail("plugging it in");
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let names = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["bridged.example"] });
    let tunnel = json!({ "egressProxy": { "address": "203.0.113.10:1080" } });
    for network in [&names, &tunnel] {
        let answer =
            stage.request("PUT", &path, &sandbox.sandbox_spec(&json!({ "network": network })));
        assert_eq!(answer.status, 400, "{}", answer.body);
        let said = answer.body.to_string();
        assert!(said.contains(port.as_str()) && said.contains("is a port of a bridge"), "{said}");
    }
    sandbox.apply_network(json!({ "denyOut": ["198.51.100.0/24"] }));
    // The interface becomes a bridge port while domain rules are in force.
    host.ip_batch(&unplug).or_fail("unplugging it");
    sandbox.apply_network(names);
    host.ip_batch(&plug).or_fail("plugging it in");
    let status = || stage.request("GET", &path, &json!(null)).body.to_string();
    let told = || status().contains("is a port of a bridge").then_some(());
    eventually("the status tells it", told).or_fail("waiting");
    host.ip_batch(&unplug).or_fail("unplugging it");
    let works = || status().contains("\"enforcing\"").then_some(());
    eventually("it is in force again", works).or_fail("waiting");
}

#[test]
fn a_guest_behind_a_tap_device_has_names() {
    let stage = TESTBED.testbed();
    let site = stage.add_site("tapped.example");
    for virtio in [VirtioHeader::Off, VirtioHeader::On] {
        let (guest, _carrier) = stage.add_tap_sandbox(virtio);
        guest.allow_only(&["tapped.example"]);
        for to in [parse_ip("203.0.113.10"), parse_ip("2001:db8:1::1")] {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://tapped.example/bytes/1000000");
                let fetched = guest.curl(&url).resolving_to(to).run();
                assert_eq!(
                    (fetched.exit_code, fetched.body.len()),
                    (0, 1_000_000),
                    "{url} by {to}"
                );
            }
            guest.curl("https://elsewhere.test/").resolving_to(to).run().assert_denied_by_alert();
        }
        let found = guest.curl("https://tapped.example/").run();
        assert!(site.served_page(&found.page_json()), "{found:?}");
    }
}
