//! Where the programs of a test file play: a stage whose agent has sandboxes to hand out, and
//! whose internet has sites.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use super::client;
use crate::{
    names::Site,
    stage::{Guest, OrFail as _, RESOLVERS, Stage},
    world::sandbox::Identity,
};

/// Sandboxes to be handed out: more than there are tests that run at a time.
const SLOTS: u8 = 16;

/// The names of the internet's sites: those of the documentation's examples, and an attacker's.
const SITES: [&str; 6] = [
    "api.example.com",
    "github.com",
    "raw.github.com",
    "mydomain.com",
    "a.b.mydomain.com",
    "evil.test",
];

static GROUNDS: Mutex<Weak<Grounds>> = Mutex::new(Weak::new());

/// The grounds, which stand as long as a test holds them.
pub struct Grounds {
    /// In the order of the slots.
    guests: Vec<Guest>,
    sites: Vec<Site>,
    /// The stage they are on.
    pub stage: Arc<Stage>,
}

impl Grounds {
    /// The grounds that all tests of a file share, built if need be.
    #[track_caller]
    pub fn shared() -> Arc<Self> {
        let mut known = GROUNDS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grounds) = known.upgrade() {
            return grounds;
        }
        let grounds = Arc::new(Self::build());
        *known = Arc::downgrade(&grounds);
        grounds
    }

    #[track_caller]
    fn build() -> Self {
        let slots: String = (1..=SLOTS).map(|number| client::slot(Identity { number })).collect();
        let stage = Stage::with_names(&format!("{RESOLVERS}{}{slots}", client::config()));
        let guests = (0..SLOTS).map(|_| stage.sandbox()).collect();
        let sites = SITES.map(|name| stage.site(name)).into();
        Self { guests, sites, stage }
    }

    /// The sandbox that the agent has given this ID.
    #[track_caller]
    pub fn handed_out(&self, id: &str) -> &Guest {
        let path = format!("/agent/v1/sandboxes/{id}");
        let answer = self.stage.request("GET", &path, &Value::Null);
        assert_eq!(answer.code, 200, "the agent does not know {id}: {}", answer.body);
        let interface = &answer.json()["interface"];
        self.behind(interface.as_str().or_fail("the sandbox's interface"))
    }

    /// The sandbox behind an interface, whoever has it.
    #[track_caller]
    pub fn behind(&self, interface: &str) -> &Guest {
        let mut guests = self.guests.iter();
        guests.find(|guest| guest.interface == interface).or_fail("looking for a sandbox")
    }

    /// A site of the internet.
    #[track_caller]
    pub fn site(&self, name: &str) -> &Site {
        self.sites.iter().find(|site| site.name == name).or_fail("looking for a site")
    }
}
