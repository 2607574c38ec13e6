//! Trailers in both directions.

use policy_testbed::{public_url::SERVICE_PORT, testbed::OrFail as _};
use serde_json::json;

use crate::{manual_sandbox, recording_sandbox};

const RESPONSE_WITH_TRAILERS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n\
                      2\r\nhi\r\n0\r\nGrpc-Status: 7\r\n\r\n";

#[test]
fn trailers_of_a_request_reach_the_service() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let fields =
        "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n";
    let reply = sandbox.send_public_request("POST /", fields).read_response();
    assert_eq!(reply.status, 200, "{reply:?}");
    let text = recorder.received_text().to_lowercase();
    assert!(text.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{text}");
}

#[test]
fn trailers_of_an_answer_reach_a_client_that_wants_them() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let mut talk = sandbox.send_public_request("GET /", "TE: trailers\r\nConnection: TE\r\n\r\n");
    let mut served = service.accept();
    let head = served.read_head().to_lowercase();
    assert!(head.contains("\r\nte: trailers\r\n"), "{head}");
    served.send(RESPONSE_WITH_TRAILERS);
    let text =
        talk.read_until("\r\n0\r\n").to_lowercase() + &talk.read_until("\r\n\r\n").to_lowercase();
    assert!(text.contains("grpc-status: 7"), "{text}");
}

#[test]
fn trailers_of_an_answer_reach_clients_of_http2() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let fetched = std::thread::scope(|scope| {
        let arguments = ["--http2-prior-knowledge", "--include", "-H", "TE: trailers"];
        let curl = sandbox.curl_public_url("http", "/").with_arguments(&arguments);
        let client = scope.spawn(move || curl.run());
        service.decline_http2();
        let mut served = service.accept();
        served.read_head();
        served.send(RESPONSE_WITH_TRAILERS);
        client.join().unwrap_or_else(|_| panic!("curl's thread panicked"))
    });
    // curl shows trailers like header fields.
    assert_eq!((fetched.exit_code, &*fetched.version), (0, "2"), "{fetched:?}");
    assert!(fetched.text().to_lowercase().contains("grpc-status: 7"), "{fetched:?}");
}

#[test]
fn trailers_do_not_frame_or_route() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let names = ["Content-Length: 3", "Transfer-Encoding: chunked", "Host: evil"];
    for trailer in names {
        let fields = format!("Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailer}\r\n\r\n");
        let mut talk = sandbox.send_public_request("POST /", &fields);
        let status = talk.try_read_response().or_fail("an answer").status;
        assert!([200, 400].contains(&status), "{trailer}: {status}");
        assert_eq!(
            sandbox
                .testbed
                .connect_to_gateway()
                .send_get(&sandbox.public_host(SERVICE_PORT))
                .read_response()
                .status,
            200
        );
    }
    let text = recorder.received_text().to_lowercase();
    let behind: Vec<_> =
        names.iter().filter(|it| text.contains(&format!("0\r\n{}", it.to_lowercase()))).collect();
    assert!(behind.is_empty(), "{behind:?}: {text}");
}
