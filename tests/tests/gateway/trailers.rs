//! Fields behind a body, in both directions.

use policy_tests::{gateway::PORT, stage::OrFail as _};
use serde_json::json;

use crate::{played, recorded};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n\
                      2\r\nhi\r\n0\r\nGrpc-Status: 7\r\n\r\n";

#[test]
fn trailers_of_a_request_reach_the_service() {
    let (sandbox, recorder) = recorded(json!({}));
    let fields =
        "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n";
    let reply = sandbox.ask("POST /", fields).reply();
    assert_eq!(reply.status, 200, "{reply:?}");
    let text = recorder.text().to_lowercase();
    assert!(text.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{text}");
}

#[test]
fn trailers_of_an_answer_reach_a_client_that_wants_them() {
    let (sandbox, service) = played(json!({}));
    let mut talk = sandbox.ask("GET /", "TE: trailers\r\nConnection: TE\r\n\r\n");
    let mut served = service.accept();
    let head = served.head().to_lowercase();
    assert!(head.contains("\r\nte: trailers\r\n"), "{head}");
    served.say(ANSWER);
    let text = talk.until("\r\n0\r\n").to_lowercase() + &talk.until("\r\n\r\n").to_lowercase();
    assert!(text.contains("grpc-status: 7"), "{text}");
}

#[test]
fn trailers_of_an_answer_reach_clients_of_http2() {
    let (sandbox, service) = played(json!({}));
    let fetched = std::thread::scope(|scope| {
        let arguments = ["--http2-prior-knowledge", "--include", "-H", "TE: trailers"];
        let curl = sandbox.fetch("http", "/").with(&arguments);
        let client = scope.spawn(move || curl.run());
        let mut served = service.accept();
        served.head();
        served.say(ANSWER);
        client.join().unwrap_or_else(|_| panic!("curl's thread panicked"))
    });
    // curl shows trailers as it shows fields.
    assert_eq!((fetched.exit, &*fetched.version), (0, "2"), "{fetched:?}");
    assert!(fetched.text().to_lowercase().contains("grpc-status: 7"), "{fetched:?}");
}

#[test]
fn trailers_do_not_frame_or_route() {
    let (sandbox, recorder) = recorded(json!({}));
    let names = ["Content-Length: 3", "Transfer-Encoding: chunked", "Host: evil"];
    for trailer in names {
        let fields = format!("Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailer}\r\n\r\n");
        let mut talk = sandbox.ask("POST /", &fields);
        let status = talk.read_reply().or_fail("an answer").status;
        assert!([200, 400].contains(&status), "{trailer}: {status}");
        assert_eq!(sandbox.stage.knock().get(&sandbox.host(PORT)).reply().status, 200);
    }
    let text = recorder.text().to_lowercase();
    let behind: Vec<_> =
        names.iter().filter(|it| text.contains(&format!("0\r\n{}", it.to_lowercase()))).collect();
    assert!(behind.is_empty(), "{behind:?}: {text}");
}
