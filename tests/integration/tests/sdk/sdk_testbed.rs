//! The testbed of the programs: the agent has pooled interfaces, and the internet has sites.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use policy_testbed::{
    named_internet::WebSite,
    network::sandbox::SandboxAddressing,
    sdk::e2b_sdk,
    testbed::{OrFail as _, RESOLVER_CONFIG, TestSandbox, Testbed},
};

/// The number of pooled sandboxes: more than the number of tests that run in parallel.
const POOL_SIZE: u8 = 16;

/// The names of the sites: those in the documentation's examples, and an attacker's.
const SITE_NAMES: [&str; 6] = [
    "api.example.com",
    "github.com",
    "raw.github.com",
    "mydomain.com",
    "a.b.mydomain.com",
    "evil.test",
];

static SHARED_TESTBED: Mutex<Weak<SdkTestbed>> = Mutex::new(Weak::new());

/// The testbed, which exists while a test holds it.
pub(crate) struct SdkTestbed {
    /// In the order of the pooled interfaces.
    sandboxes: Vec<TestSandbox>,
    sites: Vec<WebSite>,
    /// The underlying testbed.
    pub(crate) testbed: Arc<Testbed>,
}

impl SdkTestbed {
    /// The testbed that all tests of a file share, built if necessary.
    #[track_caller]
    pub(crate) fn shared() -> Arc<Self> {
        let mut known = SHARED_TESTBED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grounds) = known.upgrade() {
            return grounds;
        }
        let grounds = Arc::new(Self::build());
        *known = Arc::downgrade(&grounds);
        grounds
    }

    #[track_caller]
    fn build() -> Self {
        let slots: String = (1..=POOL_SIZE)
            .map(|number| e2b_sdk::pool_interface_config(SandboxAddressing { number }))
            .collect();
        let stage =
            Testbed::with_names(&format!("{RESOLVER_CONFIG}{}{slots}", e2b_sdk::agent_config()));
        let guests = (0..POOL_SIZE).map(|_| stage.add_sandbox()).collect();
        let sites = SITE_NAMES.map(|name| stage.add_site(name)).into();
        Self { sandboxes: guests, sites, testbed: stage }
    }

    /// The sandbox to which the agent has given this ID.
    #[track_caller]
    pub(crate) fn sandbox_by_id(&self, id: &str) -> &TestSandbox {
        let path = format!("/agent/v1/sandboxes/{id}");
        let answer = self.testbed.request("GET", &path, &Value::Null);
        assert_eq!(answer.status, 200, "the agent does not know {id}: {}", answer.body);
        let interface = &answer.json()["interface"];
        self.sandbox_by_interface(interface.as_str().or_fail("the sandbox's interface"))
    }

    /// The sandbox behind an interface, independently of its assignment.
    #[track_caller]
    pub(crate) fn sandbox_by_interface(&self, interface: &str) -> &TestSandbox {
        let mut guests = self.sandboxes.iter();
        guests.find(|guest| guest.interface == interface).or_fail("looking for a sandbox")
    }

    /// A site of the internet.
    #[track_caller]
    pub(crate) fn site_by_name(&self, name: &str) -> &WebSite {
        self.sites.iter().find(|site| site.name == name).or_fail("looking for a site")
    }
}
