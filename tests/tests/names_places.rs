//! Names wherever the sandbox's interface stands: in another network namespace, and behind a tap
//! device.

use std::net::IpAddr;

use policy_tests::{
    names::{curl::Curl, raw::Talk},
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
    // Each slot is an internet of its own where no site stands: only the agent can reach one.
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
            Curl::fetching(inside, names.files(), &url).misled_to(to).run().is_reset();
            let mut talk = Talk::from(inside, (to, HTTP).into()).or_fail("connecting");
            talk.get(&foreign.name).reply().is_refused(403, "name_not_allowed");
        }
    }
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
            guest.curl("https://elsewhere.test/").misled_to(to).run().is_reset();
        }
        let found = guest.curl("https://tapped.example/").run();
        assert!(site.shows(&found.page()), "{found:?}");
    }
}
