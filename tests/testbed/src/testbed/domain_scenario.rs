//! A sandbox that may connect to some names, and an attacker's site that it must not reach.

use super::{SharedTestbed, TestSandbox};
use crate::{
    named_internet::{
        WebSite,
        raw_http::{CloseKind, RawHttpConnection},
    },
    test_servers::HTTPS_PORT,
};

/// Two sites that the sandbox may reach, and the attacker's site.
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
    /// Adds the sandbox and the sites to a testbed with names. `name` must be unique in that
    /// testbed.
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

    /// Connects to the attacker's site.
    #[track_caller]
    pub fn connect_to_denied_site(&self, port: u16) -> RawHttpConnection {
        self.sandbox.connect_raw(self.denied_site.v4, port)
    }

    /// Asserts that no connection reached the attacker's site, and that the agent did not resolve
    /// its name for the sandbox.
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

    /// Sends a ClientHello to the attacker's site and asserts that it ends with this alert.
    #[track_caller]
    pub fn assert_alert(&self, hello: &[u8], description: u8) {
        let mut talk = self.connect_to_denied_site(HTTPS_PORT);
        assert_eq!(talk.send(hello).read_to_close(), CloseKind::Clean);
        talk.assert_alert(description);
    }

    /// Sends other bytes to the attacker's site and asserts that the connection is reset.
    #[track_caller]
    pub fn assert_reset(&self, bytes: &[u8]) {
        assert_eq!(
            self.sandbox.close_after(self.denied_site.v4, HTTPS_PORT, bytes),
            CloseKind::Reset
        );
    }
}
