//! A sandbox that may ask for some names, and an attacker who would like to be reached by them.

use super::{Guest, Shared};
use crate::{
    names::{
        Site,
        raw::{Ending, Talk},
    },
    server::HTTPS,
};

/// Two sites that the sandbox may ask for, and the attacker's.
pub struct NameScene {
    /// The sandbox.
    pub sandbox: Guest,
    /// `<scene>.example`, allowed.
    pub shop: Site,
    /// `news.<scene>.example`, allowed.
    pub news: Site,
    /// `evil.<scene>.test`, not allowed.
    pub evil: Site,
}

impl NameScene {
    /// Adds sandbox and sites to a stage with names. `name` is the scene's own on that stage.
    #[track_caller]
    pub fn set(stage: &Shared, name: &str) -> Self {
        let sandbox = stage.sandbox();
        let stage = &sandbox.stage;
        let shop = stage.site(&format!("{name}.example"));
        let news = stage.site(&format!("news.{name}.example"));
        let evil = stage.site(&format!("evil.{name}.test"));
        let scene = Self { shop, news, evil, sandbox };
        scene.sandbox.may_only_reach(&[&scene.shop.name, &scene.news.name]);
        scene
    }

    /// A connection towards the attacker.
    #[track_caller]
    pub fn talk(&self, port: u16) -> Talk {
        self.sandbox.talk(self.evil.v4, port)
    }

    /// Nobody came to the attacker, and nobody asked for its name on the sandbox's behalf.
    #[track_caller]
    pub fn evil_saw_nothing(&self) {
        let names = self.sandbox.stage.names();
        for address in self.evil.addresses() {
            assert_eq!(names.visits(address), 0, "visits to {address}");
        }
        let asked = names.zone.asked(&self.evil.name);
        let own = self.sandbox.addresses();
        assert!(asked.iter().all(|asked| own.contains(&asked.by)), "{asked:?}");
    }

    /// Sends a ClientHello towards the attacker. It ends in an alert with this description.
    #[track_caller]
    pub fn is_alerted(&self, hello: &[u8], description: u8) {
        let mut talk = self.talk(HTTPS);
        assert_eq!(talk.say(hello).ending(), Ending::Closed);
        talk.is_alert(description);
    }

    /// Sends something else towards the attacker. It ends in a reset.
    #[track_caller]
    pub fn is_reset(&self, bytes: &[u8]) {
        assert_eq!(self.sandbox.ending(self.evil.v4, HTTPS, bytes), Ending::Reset);
    }
}
