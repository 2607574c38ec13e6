//! A running program that has created a sandbox, and that sandbox.

use std::{sync::Arc, thread};

use serde_json::Value;

use super::sdk_testbed::SdkTestbed;
use policy_testbed::{
    named_internet::curl::{CurlCommand, CurlResult},
    network::host_router::HOST_UPLINK_V4,
    sdk::{E2bSdk, HeaderEchoService, sdk_program::SdkProgram},
    testbed::{OrFail as _, TestSandbox},
};

/// A running program.
pub(crate) struct SdkSession {
    /// The program's last report.
    pub(crate) last_report: Value,
    sdk: E2bSdk,
    program_name: &'static str,
    program: Option<SdkProgram>,
    /// The testbed.
    pub(crate) testbed: Arc<SdkTestbed>,
}

impl SdkSession {
    /// Runs a program with each SDK. `check` runs after the program's first report. The program
    /// must then end successfully.
    #[track_caller]
    pub(crate) fn for_each_sdk(program: &'static str, check: impl Fn(&mut Self)) {
        for sdk in E2bSdk::ALL {
            let mut scene = Self::start(sdk, program);
            check(&mut scene);
            scene.finish();
        }
    }

    /// Runs a program until its first report.
    #[track_caller]
    pub(crate) fn start(sdk: E2bSdk, name: &'static str) -> Self {
        let grounds = SdkTestbed::shared();
        let command = sdk.command(&grounds.testbed.network.host, name);
        let program = command.and_then(|mut command| SdkProgram::start(&mut command));
        let program = Some(program.or_fail("starting the program"));
        let mut scene =
            Self { last_report: Value::Null, sdk, program_name: name, program, testbed: grounds };
        scene.read_report();
        scene
    }

    /// Lets the program continue until its next report.
    #[track_caller]
    pub(crate) fn resume(&mut self) {
        self.running_program().resume().or_fail("letting the program go on");
        self.read_report();
    }

    /// Lets the program continue until it exits. The sandbox must then be deleted.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        let program = self.program.take().or_fail("the program");
        program.finish().or_fail("letting the program come to its end");
        let path = format!("/sandboxes/{}", self.report_field("sandboxID"));
        assert_eq!(self.testbed.testbed.request("GET", &path, &Value::Null).status, 404, "{path}");
    }

    /// The sandbox that the program has created, while it exists.
    #[track_caller]
    pub(crate) fn sandbox(&self) -> &TestSandbox {
        self.testbed.sandbox_by_id(self.report_field("sandboxID"))
    }

    /// A field of the program's last report.
    #[track_caller]
    pub(crate) fn report_field(&self, key: &str) -> &str {
        let told = &self.last_report;
        told[key].as_str().unwrap_or_else(|| panic!("no {key:?} in what was told: {told}"))
    }

    /// Starts a web server in the sandbox.
    #[track_caller]
    pub(crate) fn start_service(&self, port: u16) -> HeaderEchoService {
        HeaderEchoService::start(&self.sandbox().namespace, port)
            .or_fail("starting a service in the sandbox")
    }

    /// Runs curl from the internet to the sandbox's public URL, with these arguments.
    #[track_caller]
    pub(crate) fn curl_public_url(&self, arguments: &[&str]) -> CurlResult {
        self.curl_public_host(self.report_field("host"), arguments)
    }

    /// Runs curl to another host of the gateway.
    #[track_caller]
    pub(crate) fn curl_public_host(&self, host: &str, arguments: &[&str]) -> CurlResult {
        let (stage, url) = (&self.testbed.testbed, format!("http://{host}/here"));
        let curl =
            CurlCommand::new(&stage.network.internet, stage.named_internet().client_files(), &url);
        curl.resolving_to(HOST_UPLINK_V4.into()).with_arguments(arguments).run()
    }

    /// Runs curl from the sandbox to a site.
    #[track_caller]
    pub(crate) fn curl_site(&self, scheme: &str, site: &str) -> CurlResult {
        let address = self.testbed.site_by_name(site).v4;
        self.sandbox().curl(&format!("{scheme}://{site}/")).resolving_to(address).run()
    }

    #[track_caller]
    fn read_report(&mut self) {
        self.last_report = self.running_program().next_report().or_fail("listening to the program");
    }

    #[track_caller]
    fn running_program(&mut self) -> &mut SdkProgram {
        self.program.as_mut().or_fail("the program")
    }
}

impl Drop for SdkSession {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { sdk, program_name: name, last_report: told, .. } = self;
            eprintln!("--- {name} with {sdk} had told {}", redacted(told));
            eprintln!("--- the agent's log ends:\n{}", self.testbed.testbed.agent().log_tail());
        }
    }
}

/// The report without the sandbox's token.
fn redacted(told: &Value) -> Value {
    let mut told = told.clone();
    for key in ["token", "connectedToken"] {
        if let Some(token) = told.get_mut(key) {
            *token = "…".into();
        }
    }
    told
}
