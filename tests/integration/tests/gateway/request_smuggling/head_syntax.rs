//! Lines and fields in the head of a request.

use super::{SMUGGLED_REQUEST, SmugglingScenario};

#[test]
fn lines_and_fields_have_one_reading() {
    let scene = SmugglingScenario::new();
    let good = scene.sandbox.public_request_text("GET /", "X: y\r\n\r\n");
    scene.assert_refused(&format!("{}{SMUGGLED_REQUEST}", good.replace("\r\n", "\n")));
    scene.assert_refused(&format!("{}{SMUGGLED_REQUEST}", good.replace("\r\n", "\r")));
    scene.assert_refused(&good.replace("\r\n\r\n", "\n\r\n"));
    scene.assert_refused(&good.replace("\r\n\r\n", "\r\n\n"));
    for field in [
        "no colon",
        ": no name",
        "X Y: z",
        "X\0: y",
        "X: y\0z",
        "X\u{e9}: y",
        "X(: y",
        " X: y",
        "X: y\u{7f}",
        "X: y\u{1}",
    ] {
        scene.assert_refused(
            &scene.sandbox.public_request_text("GET /", &format!("{field}\r\n\r\n")),
        );
    }
    for line in [
        "GET",
        "GET ",
        "GET  /",
        " GET /",
        "GET\t/",
        "GET / x",
        "GET /\0",
        "GET /\u{7f}",
        "G\0T /",
        "G(T /",
        "GET\u{b}/",
        "GET /a b",
        "GET nowhere",
    ] {
        scene.assert_refused(&scene.sandbox.public_request_text(line, "\r\n"));
    }
    for version in [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/3",
        "http/1.1",
        "HTTP/1.10",
        "HTTP/11",
        "HTTP/1.1 ",
        "HTTP 1.1",
        "X/1.1",
        "",
    ] {
        scene.assert_refused(&good.replace("HTTP/1.1", version));
    }
    scene.assert_refused(&good.replace(" HTTP/1.1", ""));
}

#[test]
fn heads_have_a_limit() {
    let scene = SmugglingScenario::new();
    let long = "x".repeat(1_000_000);
    scene
        .assert_refused(&scene.sandbox.public_request_text("GET /", &format!("X: {long}\r\n\r\n")));
    scene.assert_refused(&scene.sandbox.public_request_text(&format!("GET /{long}"), "\r\n"));
    scene.assert_refused(
        &scene.sandbox.public_request_text("GET /", &format!("{}\r\n", "X: y\r\n".repeat(10_000))),
    );
    scene
        .assert_refused(&scene.sandbox.public_request_text("GET /", &format!("{long}: y\r\n\r\n")));
    // The limit is not too small.
    let fields = "Cookie: some=cookie\r\n".repeat(50) + &format!("X: {}\r\n\r\n", &long[..30_000]);
    assert_eq!(scene.sandbox.send_public_request("GET /", &fields).read_response().status, 200);
}
