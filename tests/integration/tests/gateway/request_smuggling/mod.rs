//! Requests that two parsers could interpret differently. The service in the sandbox uses no HTTP
//! library and records all bytes: whatever the client sends, they contain no second request.

mod body_framing;
mod head_syntax;
mod host_field;
mod response_matching;

use policy_testbed::{
    named_internet::raw_http::RawHttpConnection, public_url::recording_service::RecordingService,
    testbed::TestSandbox,
};
use serde_json::json;

use crate::recording_sandbox;

/// A request that no party must parse as one.
const SMUGGLED_REQUEST: &str = "GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// A sandbox under attack.
struct SmugglingScenario {
    sandbox: TestSandbox,
    recorder: RecordingService,
}

impl SmugglingScenario {
    #[track_caller]
    fn new() -> Self {
        let (sandbox, recorder) = recording_sandbox(json!({}));
        Self { sandbox, recorder }
    }

    /// Sends bytes that must be refused: the response is 400 or absent, the connection ends, and no
    /// request reaches the service.
    #[track_caller]
    fn assert_refused(&self, attack: &str) {
        let before = self.recorder.request_heads().len();
        let mut talk = self.sandbox.testbed.connect_to_gateway();
        // Ends the sending direction, for parsers that wait for more of a body.
        talk.send(attack).stream().shutdown(std::net::Shutdown::Write).unwrap_or_default();
        let shown: String = attack.chars().take(300).collect();
        let statuses = read_statuses(&mut talk);
        assert!(matches!(statuses[..], [] | [400]), "{shown:?} is answered with {statuses:?}");
        assert_eq!(self.recorder.request_heads().len(), before, "{shown:?} comes through");
        self.assert_nothing_smuggled(&shown);
    }

    /// Asserts that no part of an attack has reached the service, and that the next request gets
    /// its own response.
    #[track_caller]
    fn assert_nothing_smuggled(&self, attack: &str) {
        for _ in 0..2 {
            let canary = format!("GET /canary-{}", self.recorder.request_heads().len());
            let reply = self.sandbox.send_public_request(&canary, "\r\n").read_response();
            assert!(reply.body.starts_with(&canary), "behind {attack:?}: {reply:?}");
        }
        let text = self.recorder.received_text();
        assert!(!text.contains("smuggled"), "{attack:?}: {text}");
    }

    /// Sends a request that must be refused but whose end is certain, so the connection may
    /// continue.
    #[track_caller]
    fn assert_one_refused(&self, request: &str) {
        let before = self.recorder.request_heads().len();
        let reply = self.sandbox.testbed.connect_to_gateway().send(request).read_response();
        assert_eq!(reply.status, 400, "{request:?}: {reply:?}");
        assert_eq!(self.recorder.request_heads().len(), before, "{request:?}");
        self.assert_nothing_smuggled(request);
    }

    /// Sends a POST with these fields and a body, and asserts that it is refused.
    #[track_caller]
    fn assert_post_refused(&self, fields: &str, body: &str) {
        self.assert_refused(
            &self.sandbox.public_request_text("POST /", &format!("{fields}\r\n\r\n{body}")),
        );
    }
}

/// The statuses of all responses until the end of the connection.
#[track_caller]
fn read_statuses(talk: &mut RawHttpConnection) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Ok(reply) = talk.try_read_response() {
        statuses.push(reply.status);
    }
    talk.read_to_close();
    statuses
}
