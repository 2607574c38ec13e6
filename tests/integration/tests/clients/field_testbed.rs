//! A testbed whose internet has registries and other well-known names, all at one test address, and
//! sandboxes with realistic lists.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use policy_testbed::{
    named_internet::dns_zone::DnsAnswer,
    testbed::{OrFail as _, RULES_CONFIG, TestSandbox, Testbed},
};
use serde_json::{Map, Value, json};

use super::{registry_content::RegistryContent, registry_server::RegistryServer};

/// The name of the site whose addresses all other names have.
const REGISTRY_SITE: &str = "origin.example";

static SHARED_FIELD: Mutex<Weak<FieldTestbed>> = Mutex::new(Weak::new());

/// The testbed exists while a test holds it. Fields are dropped in this order: servers before the
/// testbed.
pub(crate) struct FieldTestbed {
    /// The web servers.
    pub(crate) registry: RegistryServer,
    /// One of their addresses.
    pub(crate) address: IpAddr,
    /// Both addresses. Every name has them.
    both_addresses: DnsAnswer,
    /// The test network and its agent.
    pub(crate) testbed: Arc<Testbed>,
}

impl FieldTestbed {
    /// The testbed that all tests share, built if necessary.
    #[track_caller]
    pub(crate) fn shared() -> Arc<Self> {
        let mut known = SHARED_FIELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(field) = known.upgrade() {
            return field;
        }
        let field = Arc::new(Self::build());
        *known = Arc::downgrade(&field);
        field
    }

    #[track_caller]
    fn build() -> Self {
        let goods = RegistryContent::build().or_fail("packing what registries have");
        let stage = Testbed::with_names(RULES_CONFIG);
        let (names, internet) = (stage.named_internet(), &stage.network.internet);
        let site = names.reserve_site(REGISTRY_SITE).or_fail("a place for the servers");
        let origin = RegistryServer::start(internet, &site.addresses(), &names.authority, goods);
        let answer = DnsAnswer::with_addresses(&site.addresses());
        Self {
            registry: origin.or_fail("starting web servers"),
            address: site.v4,
            both_addresses: answer,
            testbed: stage,
        }
    }

    /// Makes these names resolve from now on.
    pub(crate) fn resolve_to_registry(&self, names: &[&str]) {
        for name in names {
            self.testbed.named_internet().zone.set_answer(name, self.both_addresses.clone());
        }
    }

    /// A sandbox with a list of `tests/fixtures/field`, and the names to which it will connect.
    #[track_caller]
    pub(crate) fn sandbox_with_list(&self, list: &str, names: &[&str]) -> TestSandbox {
        let sandbox = self.testbed.add_sandbox();
        self.resolve_to_registry(names);
        sandbox.apply_config(&read_allow_list(list));
        sandbox
    }

    /// A sandbox that may connect to these names, and whose requests to them get this header
    /// `Authorization`.
    #[track_caller]
    pub(crate) fn sandbox_with_rules(&self, names: &[&str], authorization: &str) -> TestSandbox {
        let sandbox = self.testbed.add_sandbox();
        self.resolve_to_registry(names);
        let rule = json!([{ "transform": { "headers": { "Authorization": authorization } } }]);
        let rules: Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), rule.clone())).collect();
        sandbox.apply_network(json!({
            "allowOut": names, "denyOut": ["0.0.0.0/0"], "rules": rules,
        }));
        sandbox
    }
}

/// Reads a list of `tests/fixtures/field`.
#[track_caller]
pub(crate) fn read_allow_list(list: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("allow_lists").join(list);
    let text = fs::read_to_string(file.with_extension("json")).or_fail("reading a list");
    serde_json::from_str(&text).or_fail("a list of JSON")
}
