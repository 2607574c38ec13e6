//! The field: a stage whose internet has registries and other well-known names, all of them at one
//! address of the test's own, and sandboxes whose lists are those that people write.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use policy_tests::{
    names::zone::Answer,
    stage::{Guest, OrFail as _, RESOLVERS, Stage},
};
use serde_json::Value;

use super::{goods::Goods, origin::Origin};

/// The name of the site that all others are at.
const SITE: &str = "origin.example";

static FIELD: Mutex<Weak<Field>> = Mutex::new(Weak::new());

/// It stands as long as a test holds it. Fields are dropped in this order: servers before the stage.
pub struct Field {
    /// The web servers.
    pub origin: Origin,
    /// An address of theirs.
    pub address: IpAddr,
    /// Both addresses, which every name has.
    answer: Answer,
    /// The world and its agent.
    pub stage: Arc<Stage>,
}

impl Field {
    /// The field that all tests share, built if need be.
    #[track_caller]
    pub fn shared() -> Arc<Self> {
        let mut known = FIELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(field) = known.upgrade() {
            return field;
        }
        let field = Arc::new(Self::build());
        *known = Arc::downgrade(&field);
        field
    }

    #[track_caller]
    fn build() -> Self {
        let goods = Goods::pack().or_fail("packing what registries have");
        let stage = Stage::with_names(RESOLVERS);
        let (names, internet) = (stage.names(), &stage.world.internet);
        let site = names.place(SITE).or_fail("a place for the servers");
        let origin = Origin::start(internet, &site.addresses(), &names.authority, goods);
        let answer = Answer::of(&site.addresses());
        Self { origin: origin.or_fail("starting web servers"), address: site.v4, answer, stage }
    }

    /// From now on, these names are there.
    pub fn resolves(&self, names: &[&str]) {
        for name in names {
            self.stage.names().zone.set(name, self.answer.clone());
        }
    }

    /// A sandbox that has a list of `tests/fixtures/field`, and the names that it will ask for.
    #[track_caller]
    pub fn sandbox(&self, list: &str, names: &[&str]) -> Guest {
        let sandbox = self.stage.sandbox();
        self.resolves(names);
        sandbox.configure(&listed(list));
        sandbox
    }
}

/// What a list of `tests/fixtures/field` says.
#[track_caller]
pub fn listed(list: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/field").join(list);
    let text = fs::read_to_string(file.with_extension("json")).or_fail("reading a list");
    serde_json::from_str(&text).or_fail("a list of JSON")
}
