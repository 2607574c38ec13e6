//! Requests that two readers could take for different ones. The service in the sandbox is no HTTP
//! library and keeps all that it gets: whatever the client sends, no second request is among it.

mod answers;
mod framing;
mod heads;
mod hosts;

use policy_tests::{gateway::recorder::Recorder, names::raw::Talk, stage::Guest};
use serde_json::json;

use crate::recorded;

/// What nobody may take for a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// A sandbox under attack.
struct Scene {
    sandbox: Guest,
    recorder: Recorder,
}

impl Scene {
    #[track_caller]
    fn set() -> Self {
        let (sandbox, recorder) = recorded(json!({}));
        Self { sandbox, recorder }
    }

    /// Sends bytes that are to be refused: the answer is 400, or none; the connection ends; and no
    /// request comes to the service.
    #[track_caller]
    fn refuses(&self, attack: &str) {
        let before = self.recorder.heads().len();
        let mut talk = self.sandbox.stage.knock();
        // The end of what is sent, for those who wait for more of a body.
        talk.say(attack).stream().shutdown(std::net::Shutdown::Write).unwrap_or_default();
        let shown: String = attack.chars().take(300).collect();
        let statuses = statuses(&mut talk);
        assert!(matches!(statuses[..], [] | [400]), "{shown:?} is answered with {statuses:?}");
        assert_eq!(self.recorder.heads().len(), before, "{shown:?} comes through");
        self.nothing_lurks(&shown);
    }

    /// No part of an attack has come to the service, and the next request gets its own answer.
    #[track_caller]
    fn nothing_lurks(&self, attack: &str) {
        for _ in 0..2 {
            let canary = format!("GET /canary-{}", self.recorder.heads().len());
            let reply = self.sandbox.ask(&canary, "\r\n").reply();
            assert!(reply.body.starts_with(&canary), "behind {attack:?}: {reply:?}");
        }
        let text = self.recorder.text();
        assert!(!text.contains("smuggled"), "{attack:?}: {text}");
    }

    /// Sends a request that is to be refused, with no doubt about where it ends: the connection may
    /// go on.
    #[track_caller]
    fn refuses_one(&self, request: &str) {
        let before = self.recorder.heads().len();
        let reply = self.sandbox.stage.knock().say(request).reply();
        assert_eq!(reply.status, 400, "{request:?}: {reply:?}");
        assert_eq!(self.recorder.heads().len(), before, "{request:?}");
        self.nothing_lurks(request);
    }

    /// Sends a POST with these lines of fields, and a body.
    #[track_caller]
    fn refuses_post(&self, fields: &str, body: &str) {
        self.refuses(&self.sandbox.request("POST /", &format!("{fields}\r\n\r\n{body}")));
    }
}

/// The statuses of all answers, up to the end.
#[track_caller]
fn statuses(talk: &mut Talk) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Ok(reply) = talk.read_reply() {
        statuses.push(reply.status);
    }
    talk.ending();
    statuses
}
