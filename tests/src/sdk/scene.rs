//! A program that has created a sandbox, and that sandbox.

use std::{sync::Arc, thread};

use serde_json::Value;

use super::{Sdk, grounds::Grounds, program::Program, service::Service};
use crate::{
    names::curl::{Curl, Fetched},
    stage::{Guest, OrFail as _},
    world::host::HOST_V4,
};

/// A program in the middle of its play.
pub struct Scene {
    /// What it told last.
    pub told: Value,
    sdk: Sdk,
    name: &'static str,
    program: Option<Program>,
    /// Where it plays.
    pub grounds: Arc<Grounds>,
}

impl Scene {
    /// Plays a program with each SDK in turn; `check` gets it when it has told something for the
    /// first time. It then has to come to a good end.
    #[track_caller]
    pub fn each(program: &'static str, check: impl Fn(&mut Self)) {
        for sdk in Sdk::ALL {
            let mut scene = Self::open(sdk, program);
            check(&mut scene);
            scene.close();
        }
    }

    /// Runs a program until it tells something.
    #[track_caller]
    pub fn open(sdk: Sdk, name: &'static str) -> Self {
        let grounds = Grounds::shared();
        let command = sdk.command(&grounds.stage.world.host, name);
        let program = command.and_then(|mut command| Program::start(&mut command));
        let program = Some(program.or_fail("starting the program"));
        let mut scene = Self { told: Value::Null, sdk, name, program, grounds };
        scene.listen();
        scene
    }

    /// Lets the program go on until it tells something again.
    #[track_caller]
    pub fn go_on(&mut self) {
        self.program().go().or_fail("letting the program go on");
        self.listen();
    }

    /// Lets the program go on to its end; the sandbox then has to be gone.
    #[track_caller]
    pub fn close(mut self) {
        let program = self.program.take().or_fail("the program");
        program.finish().or_fail("letting the program come to its end");
        let path = format!("/sandboxes/{}", self.text("sandboxID"));
        assert_eq!(self.grounds.stage.request("GET", &path, &Value::Null).code, 404, "{path}");
    }

    /// The sandbox that the program has created, while it is there.
    #[track_caller]
    pub fn sandbox(&self) -> &Guest {
        self.grounds.handed_out(self.text("sandboxID"))
    }

    /// Something that the program told.
    #[track_caller]
    pub fn text(&self, key: &str) -> &str {
        let told = &self.told;
        told[key].as_str().unwrap_or_else(|| panic!("no {key:?} in what was told: {told}"))
    }

    /// A web server in the sandbox.
    #[track_caller]
    pub fn serve(&self, port: u16) -> Service {
        Service::start(&self.sandbox().inside, port).or_fail("starting a service in the sandbox")
    }

    /// Real curl from the internet to the sandbox's public URL, with these arguments.
    #[track_caller]
    pub fn visit(&self, arguments: &[&str]) -> Fetched {
        self.visit_host(self.text("host"), arguments)
    }

    /// The same to another host of the gateway.
    #[track_caller]
    pub fn visit_host(&self, host: &str, arguments: &[&str]) -> Fetched {
        let (stage, url) = (&self.grounds.stage, format!("http://{host}/here"));
        let curl = Curl::fetching(&stage.world.internet, stage.names().files(), &url);
        curl.misled_to(HOST_V4.into()).with(arguments).run()
    }

    /// Real curl from the sandbox to a site.
    #[track_caller]
    pub fn fetch(&self, scheme: &str, site: &str) -> Fetched {
        let address = self.grounds.site(site).v4;
        self.sandbox().curl(&format!("{scheme}://{site}/")).misled_to(address).run()
    }

    #[track_caller]
    fn listen(&mut self) {
        self.told = self.program().told().or_fail("listening to the program");
    }

    #[track_caller]
    fn program(&mut self) -> &mut Program {
        self.program.as_mut().or_fail("the program")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { sdk, name, told, .. } = self;
            eprintln!("--- {name} with {sdk} had told {}", redacted(told));
            eprintln!("--- the agent's log ends:\n{}", self.grounds.stage.agent().log());
        }
    }
}

/// What was told without the sandbox's token.
fn redacted(told: &Value) -> Value {
    let mut told = told.clone();
    for key in ["token", "connectedToken"] {
        if let Some(token) = told.get_mut(key) {
            *token = "…".into();
        }
    }
    told
}
