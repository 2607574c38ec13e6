//! A sandbox that may ask for some names, and an attacker who would like to be reached by them.

use super::{SharedTestbed, TestSandbox};
use crate::{
    named_internet::{
        WebSite,
        raw_http::{CloseKind, RawHttpConnection},
    },
    test_servers::HTTPS_PORT,
};

/// Two sites that the sandbox may ask for, and the attacker's.
pub struct DomainScenario {
    /// The sandbox.
    pub sandbox: TestSandbox,
    /// `<scene>.example`, allowed.
    pub allowed_site: WebSite,
    /// `news.<scene>.example`, allowed.
    pub allowed_subdomain: WebSite,
    /// `evil.<scene>.test`, not allowed.
    pub denied_site: WebSite,
}

impl DomainScenario {
    /// Adds sandbox and sites to a stage with names. `name` is the scene's own on that stage.
    #[track_caller]
    pub fn new(stage: &SharedTestbed, name: &str) -> Self {
        let sandbox = stage.add_sandbox();
        let stage = &sandbox.testbed;
        let shop = stage.add_site(&format!("{name}.example"));
        let news = stage.add_site(&format!("news.{name}.example"));
        let evil = stage.add_site(&format!("evil.{name}.test"));
        let scene =
            Self { allowed_site: shop, allowed_subdomain: news, denied_site: evil, sandbox };
        scene.sandbox.allow_only(&[&scene.allowed_site.name, &scene.allowed_subdomain.name]);
        scene
    }

    /// A connection towards the attacker.
    #[track_caller]
    pub fn connect_to_denied_site(&self, port: u16) -> RawHttpConnection {
        self.sandbox.connect_raw(self.denied_site.v4, port)
    }

    /// Nobody came to the attacker, and nobody asked for its name on the sandbox's behalf.
    #[track_caller]
    pub fn assert_denied_site_unreached(&self) {
        let names = self.sandbox.testbed.named_internet();
        for address in self.denied_site.addresses() {
            assert_eq!(names.connection_count(address), 0, "visits to {address}");
        }
        let asked = names.zone.queries_for(&self.denied_site.name);
        let own = self.sandbox.addresses();
        assert!(asked.iter().all(|asked| own.contains(&asked.client)), "{asked:?}");
    }

    /// Sends a ClientHello towards the attacker. It ends in an alert with this description.
    #[track_caller]
    pub fn assert_alert(&self, hello: &[u8], description: u8) {
        let mut talk = self.connect_to_denied_site(HTTPS_PORT);
        assert_eq!(talk.send(hello).read_to_close(), CloseKind::Clean);
        talk.assert_alert(description);
    }

    /// Sends something else towards the attacker. It ends in a reset.
    #[track_caller]
    pub fn assert_reset(&self, bytes: &[u8]) {
        assert_eq!(
            self.sandbox.close_after(self.denied_site.v4, HTTPS_PORT, bytes),
            CloseKind::Reset
        );
    }
}
