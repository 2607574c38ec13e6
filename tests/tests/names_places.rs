//! Names wherever the sandbox's interface stands: in another network namespace, and behind a tap
//! device.

use std::net::IpAddr;

use policy_tests::{
    names::{curl::Curl, raw::Talk},
    patience::eventually,
    server::HTTP,
    stage::{OrFail as _, RESOLVERS, Shared, ip},
    world::{slot::Slot, tap::Virtio},
};
use serde_json::json;

static STAGE: Shared = Shared::with_names(RESOLVERS);

#[test]
fn sandboxes_in_other_namespaces_have_names_of_their_own() {
    let stage = STAGE.stage();
    let names = stage.names();
    let (one, other) = (stage.site("slot-one.example"), stage.site("slot-two.example"));
    let slots = ["slotone", "slottwo"].map(|id| Slot::build(id).or_fail("building a slot"));
    for (slot, site) in slots.iter().zip([&one, &other]) {
        let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [site.name] });
        let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
        let answer = stage.request("PUT", &path, &slot.spec(&json!({ "network": network })));
        assert_eq!(answer.code, 200, "{}", answer.body);
    }
    // Each slot has an internet of its own where no site stands: only the agent can reach one.
    let towards: [IpAddr; 2] = [ip("203.0.113.10"), ip("2001:db8:1::1")];
    for (slot, (own, foreign)) in slots.iter().zip([(&one, &other), (&other, &one)]) {
        let inside = &slot.sandbox.inside;
        for to in towards {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{}/", own.name);
                let fetched = Curl::fetching(inside, names.files(), &url).misled_to(to).run();
                assert!(own.shows(&fetched.page()), "{fetched:?}");
            }
            let url = format!("https://{}/", foreign.name);
            Curl::fetching(inside, names.files(), &url).misled_to(to).run().is_denied();
            let mut talk = Talk::from(inside, (to, HTTP).into()).or_fail("connecting");
            talk.get(&foreign.name).reply().is_refused(403, "name_not_allowed");
        }
    }
}

/// A bridge takes the frames before they can be handed over to the proxy.
#[test]
fn on_a_port_of_a_bridge_names_are_refused_and_the_reason_is_told() {
    let stage = STAGE.stage();
    let sandbox = stage.sandbox();
    stage.site("bridged.example");
    let host = &stage.world.host;
    let (bridge, port) = ("br7", &sandbox.interface);
    host.ip(&format!("link add {bridge} type bridge")).or_fail("a bridge");
    let plug = format!("link set {port} master {bridge}");
    let unplug = format!("link set {port} nomaster");
    host.ip(&plug).or_fail("plugging it in");
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let names = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["bridged.example"] });
    let tunnel = json!({ "egressProxy": { "address": "203.0.113.10:1080" } });
    for network in [&names, &tunnel] {
        let answer = stage.request("PUT", &path, &sandbox.spec(&json!({ "network": network })));
        assert_eq!(answer.code, 400, "{}", answer.body);
        let said = answer.body.to_string();
        assert!(said.contains(port.as_str()) && said.contains("is a port of a bridge"), "{said}");
    }
    sandbox.network(json!({ "denyOut": ["198.51.100.0/24"] }));
    // It becomes one while there are names.
    host.ip(&unplug).or_fail("unplugging it");
    sandbox.network(names);
    host.ip(&plug).or_fail("plugging it in");
    let status = || stage.request("GET", &path, &json!(null)).body.to_string();
    let told = || status().contains("is a port of a bridge").then_some(());
    eventually("the status tells it", told).or_fail("waiting");
    host.ip(&unplug).or_fail("unplugging it");
    let works = || status().contains("\"enforcing\"").then_some(());
    eventually("it is in force again", works).or_fail("waiting");
}

#[test]
fn a_guest_behind_a_tap_device_has_names() {
    let stage = STAGE.stage();
    let site = stage.site("tapped.example");
    for virtio in [Virtio::Off, Virtio::On] {
        let (guest, _carrier) = stage.tapped_sandbox(virtio);
        guest.may_only_reach(&["tapped.example"]);
        for to in [ip("203.0.113.10"), ip("2001:db8:1::1")] {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://tapped.example/bytes/1000000");
                let fetched = guest.curl(&url).misled_to(to).run();
                assert_eq!((fetched.exit, fetched.body.len()), (0, 1_000_000), "{url} by {to}");
            }
            guest.curl("https://elsewhere.test/").misled_to(to).run().is_denied();
        }
        let found = guest.curl("https://tapped.example/").run();
        assert!(site.shows(&found.page()), "{found:?}");
    }
}
