//! Connections to port 80.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::harness::{
    ProxyHarness, TEST_TIMEOUT, accept_next, exchange, expect_bytes, is_reset, policy_allowing,
    read_all, wait_until,
};
use crate::agent::ProxyControl as _;

const OK_RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn http_harness(allowed: &[&str]) -> ProxyHarness {
    ProxyHarness::new(&policy_allowing(allowed), "192.0.2.66:80").await
}

/// Reads up to and including `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.ends_with(end) {
            let byte = stream.read_u8().await;
            text.push(char::from(byte.unwrap_or_else(|error| panic!("{error} after {text:?}"))));
        }
    };
    let in_time = timeout(TEST_TIMEOUT, read).await.is_ok();
    assert!(in_time, "{text:?}");
    text
}

/// Answers the next request on the next connection. Returns the request's head and the connection.
async fn serve_next(listener: &TcpListener, response: &str) -> (String, TcpStream) {
    let mut server_side = accept_next(listener).await;
    let head = read_until(&mut server_side, "\r\n\r\n").await;
    server_side.write_all(response.as_bytes()).await.unwrap();
    (head, server_side)
}

async fn send_text(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_request_goes_on_as_it_was_judged() {
    for (request, expected) in [
        (
            "GET /x?y HTTP/1.1\r\nHost: Good.Example.:8080\r\nX-Odd-CASE: 1\r\n\r\n",
            "GET /x?y HTTP/1.1\r\nHost: Good.Example.:8080\r\nX-Odd-CASE: 1\r\n\r\n",
        ),
        (
            "GET http://good.example/x HTTP/1.1\r\nHost: good.example:80\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: good.example:80\r\n\r\n",
        ),
        (
            "GET http://GOOD.example. HTTP/1.1\r\nHost: good.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: good.example\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: good.example\r\n\r\n",
        ),
        (
            "GET //evil.example/x HTTP/1.1\nHost: good.example\n\n",
            "GET //evil.example/x HTTP/1.1\r\nHost: good.example\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: good.example\r\nConnection: keep-alive, X-Hop, host\r\n\
             Keep-Alive: 5\r\nX-Hop: 1\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nTE: trailers\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: good.example\r\nTE: trailers\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: good.example\r\nConnection: Upgrade\r\nUpgrade: h2c, HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n",
        ),
    ] {
        let harness = http_harness(&["good.example"]).await;
        let server = harness.listen("good.example", "203.0.113.1", 80).await;
        let mut client = harness.connect().await;
        send_text(&mut client, request).await;
        let (forwarded, _server_side) = serve_next(&server, OK_RESPONSE).await;
        assert_eq!(forwarded, expected);
        expect_bytes(&mut client, OK_RESPONSE.as_bytes()).await;
        assert!(harness.connection_counts().contains(r#"protocol="http",decision="allowed"} 1"#));
    }
}

#[tokio::test]
async fn every_request_of_a_connection_is_judged() {
    let harness = http_harness(&["a.example", "b.example"]).await;
    let a = harness.listen("a.example", "203.0.113.1", 80).await;
    let b = harness.listen("b.example", "203.0.113.2", 80).await;
    let mut client = harness.connect().await;
    send_text(&mut client, "GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let (_, mut a_server) = serve_next(&a, OK_RESPONSE).await;
    expect_bytes(&mut client, OK_RESPONSE.as_bytes()).await;
    // The same server again.
    send_text(&mut client, "GET /2 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(read_until(&mut a_server, "\r\n\r\n").await.starts_with("GET /2 "));
    send_text(&mut a_server, OK_RESPONSE).await;
    expect_bytes(&mut client, OK_RESPONSE.as_bytes()).await;
    // Another server, and two pipelined requests.
    send_text(&mut client, "GET /3 HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
    send_text(&mut client, "GET /4 HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    let (head, _b_server) = serve_next(&b, OK_RESPONSE).await;
    assert!(head.starts_with("GET /3 "));
    expect_bytes(&mut client, OK_RESPONSE.as_bytes()).await;
    let refused = String::from_utf8(read_all(&mut client).await.unwrap()).unwrap();
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{refused}");
    assert!(refused.contains("(evil.example)\n") && refused.contains("\r\n\r\nname_not_allowed: "));
    assert!(refused.ends_with("To allow it: policy-agent allow web evil.example\n"), "{refused}");
    assert!(refused.contains("connection: close\r\n") && refused.contains("text/plain"));
    assert_eq!(harness.events(), [("name_not_allowed", Some("evil.example".to_owned()))]);
    assert_eq!(read_all(&mut a_server).await.unwrap(), b"", "left when another one was asked for");
    let counted = harness.connection_counts();
    assert!(counted.contains(r#"allowed"} 1"#) && counted.contains(r#"denied"} 1"#), "{counted}");
}

#[tokio::test]
async fn what_is_refused() {
    let host = "Host: good.example\r\n";
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\nHost: bad.example\r\n\r\n".to_owned(), 403, "name_not_allowed"),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 403, "deny_out"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 403, "deny_out"),
        ("GET / HTTP/1.1\r\nHost: 192.0.2.66\r\n\r\n".to_owned(), 403, "deny_out"),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n".to_owned(), 403, "deny_out"),
        (format!("CONNECT good.example:80 HTTP/1.1\r\n{host}\r\n"), 400, "not_judgeable"),
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), 400, "name_conflict"),
        (format!("GET / HTTP/1.1\r\n{host}hOST: bad.example\r\n\r\n"), 400, "name_conflict"),
        (format!("GET http://bad.example/ HTTP/1.1\r\n{host}\r\n"), 400, "name_conflict"),
        (format!("GET http://good.example:81/ HTTP/1.1\r\n{host}\r\n"), 400, "name_conflict"),
        ("GET http://good.example/ HTTP/1.0\r\n\r\n".to_owned(), 400, "name_conflict"),
        (
            format!("GET http://good.example@bad.example/ HTTP/1.1\r\n{host}\r\n"),
            400,
            "invalid_name",
        ),
        (format!("GET https://good.example/ HTTP/1.1\r\n{host}\r\n"), 400, "not_judgeable"),
        (format!("GET good.example HTTP/1.1\r\n{host}\r\n"), 400, "not_judgeable"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), 400, "invalid_name"),
        ("GET / HTTP/1.1\r\nHost: x@good.example\r\n\r\n".to_owned(), 400, "invalid_name"),
        ("GET / HTTP/1.1\r\nHost: good.example/x\r\n\r\n".to_owned(), 400, "invalid_name"),
        (
            "GET / HTTP/1.1\r\nHost: good.example, bad.example\r\n\r\n".to_owned(),
            400,
            "invalid_name",
        ),
        ("GET / HTTP/1.1\r\nHost: good.example:80:90\r\n\r\n".to_owned(), 400, "invalid_name"),
        ("GET / HTTP/1.1\r\nHost: good.example:x\r\n\r\n".to_owned(), 400, "invalid_name"),
        ("GET / HTTP/1.1\r\nHost: good_.example\r\n\r\n".to_owned(), 403, "name_not_allowed"),
        ("GET / HTTP/1.1\r\nHost: -good.example\r\n\r\n".to_owned(), 403, "name_not_allowed"),
        ("GET / HTTP/1.1\r\nHost: good!.example\r\n\r\n".to_owned(), 400, "invalid_name"),
        ("GET / HTTP/1.1\r\nHost: b\u{fc}cher.example\r\n\r\n".to_owned(), 400, "invalid_name"),
        ("GET / HTTP/1.1\r\nHost: good.example\0\r\n\r\n".to_owned(), 400, ""),
        ("GET / HTTP/1.1\r\nHost : good.example\r\n\r\n".to_owned(), 400, ""),
        ("GET / HTTP/1.1\r\n Host: good.example\r\n\r\n".to_owned(), 400, ""),
        ("GET / HTTP/1.1\r\nHost: good.example\r\n .evil.example\r\n\r\n".to_owned(), 400, ""),
        (
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            400,
            "",
        ),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\n"), 400, ""),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 1, 1\r\n\r\n"), 400, ""),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n"), 400, ""),
        (format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n"), 400, ""),
        (
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            400,
            "not_judgeable",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
            "not_judgeable",
        ),
        (format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(100_000)), 431, ""),
    ] {
        let harness = http_harness(&["good.example"]).await;
        let mut client = harness.connect().await;
        let answer = exchange(&mut client, &request).await;
        assert!(answer[8..].starts_with(&format!(" {status} ")), "{request:.200?}: {answer:?}");
        let expected_reason = if reason.is_empty() { "not_judgeable" } else { reason };
        assert!(answer.contains(&format!("\r\n\r\n{reason}")), "{request:.200?}: {answer:?}");
        assert_eq!(harness.first_event().await.reason, expected_reason, "{request:.200?}");
        assert_eq!(harness.events().len(), 1, "{request:.200?}");
        assert!(harness.connection_counts().contains(r#"protocol="http",decision="denied"} 1"#));
        assert!(harness.network.dialed.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn http2_is_not_spoken() {
    let harness = http_harness(&["*"]).await;
    let mut client = harness.connect().await;
    send_text(&mut client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let _ = read_all(&mut client).await;
    assert_eq!(harness.first_event().await.reason, "not_judgeable");
    assert!(harness.network.dialed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn failures_say_what_failed() {
    for (addresses, status, reason) in [
        (&[][..], 502, "name_unresolved"),
        (&["203.0.113.1"], 502, "unreachable"),
        (&["10.0.0.1"], 403, "platform_deny"),
    ] {
        let harness = http_harness(&["good.example"]).await;
        harness.set_name("good.example", addresses);
        let request = "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n";
        let answer = exchange(&mut harness.connect().await, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("\r\n\r\n{reason}: ")), "{answer}");
        assert_eq!(harness.events(), [(reason, Some("good.example".to_owned()))]);
    }
}

#[tokio::test]
async fn whoever_says_nothing_is_reset_and_whoever_said_something_is_not() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut kept = harness.connect().await;
    send_text(&mut kept, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
    let (_, mut server_side) = serve_next(&server, OK_RESPONSE).await;
    let mut silent = harness.connect().await;
    let mut slow = harness.connect().await;
    send_text(&mut slow, "GET / HTTP/1.1\r\nHost:").await;
    assert!(is_reset(&mut silent).await && is_reset(&mut slow).await);
    assert_eq!(harness.events(), [("proxy_timeout", None), ("proxy_timeout", None)]);
    tokio::time::sleep(Duration::from_millis(400)).await;
    send_text(&mut kept, "GET /2 HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
    read_until(&mut server_side, "\r\n\r\n").await;
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    send_text(
        &mut client,
        "POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\n\
        Trailer: X-Sum\r\nTE: trailers\r\n\r\n3;ext=\"x\"\r\nabc\r\n",
    )
    .await;
    let mut server_side = accept_next(&server).await;
    let head = read_until(&mut server_side, "\r\n\r\n").await;
    assert!(head.contains("Transfer-Encoding: chunked\r\n") && !head.contains("ontent-"), "{head}");
    expect_bytes(&mut server_side, b"3\r\nabc\r\n").await;
    // The response starts before the request has ended.
    send_text(
        &mut server_side,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nhi\r\n",
    )
    .await;
    read_until(&mut client, "\r\n\r\n").await;
    expect_bytes(&mut client, b"2\r\nhi\r\n").await;
    send_text(&mut client, "2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n").await;
    let end = read_until(&mut server_side, "\r\n\r\n").await;
    assert!(
        end.starts_with("2\r\nde\r\n0\r\n") && end.to_lowercase().contains("x-sum: 5"),
        "{end}"
    );
    send_text(&mut server_side, "0\r\nX-T: 1\r\n\r\n").await;
    let end = read_until(&mut client, "\r\n\r\n").await;
    assert!(end.starts_with("0\r\n") && end.to_lowercase().contains("x-t: 1"), "{end}");
}

#[tokio::test]
async fn large_bodies_arrive_whole() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 253) as u8).collect();
    let echo = tokio::spawn(async move {
        let mut server_side = accept_next(&server).await;
        let head = read_until(&mut server_side, "\r\n\r\n").await;
        assert!(head.to_lowercase().contains("content-length: 5000000\r\n"), "{head}");
        send_text(&mut server_side, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
        let (mut read, mut write) = server_side.split();
        tokio::io::copy(&mut (&mut read).take(5_000_000), &mut write).await.unwrap();
    });
    let (mut read, mut write) = harness.connect().await.into_split();
    let sent = body.clone();
    tokio::spawn(async move {
        let head = "POST / HTTP/1.0\r\nHost: good.example\r\nContent-Length: 5000000\r\n\r\n";
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&sent).await.unwrap();
        std::mem::forget(write); // keeps the client's side open
    });
    let mut received = Vec::new();
    timeout(TEST_TIMEOUT, read.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.ends_with(&body) && received.len() < body.len() + 200);
    echo.await.unwrap();
}

#[tokio::test]
async fn a_length_beside_chunks_is_not_forwarded() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    for lengths in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        let mut client = harness.connect().await;
        let smuggled = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        send_text(
            &mut client,
            &format!("POST / HTTP/1.1\r\nHost: good.example\r\n{lengths}\r\n0\r\n\r\n{smuggled}"),
        )
        .await;
        let mut server_side = accept_next(&server).await;
        let head = read_until(&mut server_side, "\r\n\r\n").await;
        assert!(!head.to_lowercase().contains("content-length"), "{head}");
        expect_bytes(&mut server_side, b"0\r\n\r\n").await;
        send_text(&mut server_side, OK_RESPONSE).await;
        let answer = String::from_utf8(read_all(&mut client).await.unwrap()).unwrap();
        assert!(answer.contains("200 OK") && !answer.contains("evil"), "{answer}");
        assert_eq!(read_all(&mut server_side).await.unwrap(), b"", "nothing of what followed");
    }
}

#[tokio::test]
async fn heads_without_bodies() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    let mut server_side: Option<TcpStream> = None;
    for (method, response) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
    ] {
        send_text(&mut client, &format!("{method} / HTTP/1.1\r\nHost: good.example\r\n\r\n")).await;
        let stream = match &mut server_side {
            Some(stream) => stream,
            none => none.insert(accept_next(&server).await),
        };
        read_until(stream, "\r\n\r\n").await;
        send_text(stream, response).await;
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, response);
    }
}

#[tokio::test]
async fn a_client_may_wait_for_100_continue() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    send_text(
        &mut client,
        "PUT / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    let mut server_side = accept_next(&server).await;
    read_until(&mut server_side, "\r\n\r\n").await;
    assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    send_text(&mut client, "body").await;
    expect_bytes(&mut server_side, b"body").await;
    send_text(&mut server_side, "HTTP/1.1 100 Continue\r\n\r\n").await;
    send_text(&mut server_side, OK_RESPONSE).await;
    expect_bytes(&mut client, OK_RESPONSE.as_bytes()).await;
}

#[tokio::test]
async fn other_protocols_follow_an_upgrade() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    send_text(
        &mut client,
        "GET /chat HTTP/1.1\r\nHost: good.example\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: h2c, websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    )
    .await;
    let mut server_side = accept_next(&server).await;
    let head = read_until(&mut server_side, "\r\n\r\n").await;
    assert!(
        head.contains("Upgrade: websocket\r\n") && head.contains("Connection: upgrade\r\n"),
        "{head}"
    );
    assert!(!head.contains("h2c"));
    send_text(&mut server_side, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nfirst").await;
    let answer = read_until(&mut client, "\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && answer.to_lowercase().contains("upgrade: websocket")
    );
    expect_bytes(&mut client, b"first").await;
    send_text(&mut client, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    expect_bytes(&mut server_side, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server_side).await.unwrap(), b"");
    send_text(&mut server_side, "late").await;
    expect_bytes(&mut client, b"late").await;
    assert_eq!(harness.active(), 1);
    harness.proxy.update_policy(harness.slot, &policy_allowing(&["b.example"]));
    assert!(harness.active() == 0 && is_reset(&mut client).await);
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_none() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    send_text(&mut client, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
    let response = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let (_, _server_side) = serve_next(&server, response).await;
    let answer = String::from_utf8(read_all(&mut client).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains("\r\n\r\nbad_response: "), "{answer}");
}

#[tokio::test]
async fn a_server_that_closes_is_found_again() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    for _ in 0..3 {
        send_text(&mut client, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
        let (_, server_side) = serve_next(&server, OK_RESPONSE).await;
        expect_bytes(&mut client, OK_RESPONSE.as_bytes()).await;
        drop(server_side);
    }
}

#[tokio::test]
async fn answers_that_break_off_or_are_none_have_reasons_of_their_own() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for (response, reason) in [
        (String::new(), "server_broke_off"),
        ("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), "server_broke_off"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), "bad_response"),
        ("HTTP/2.0 200 OK\r\n\r\n".to_owned(), "bad_response"),
        (format!("{ok}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "bad_response"),
        (format!("{ok}X: {}\r\n\r\n", "x".repeat(200_000)), "bad_response"),
    ] {
        let harness = http_harness(&["good.example"]).await;
        let server = harness.listen("good.example", "203.0.113.1", 80).await;
        let mut client = harness.connect().await;
        send_text(&mut client, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
        let mut server_side = accept_next(&server).await;
        read_until(&mut server_side, "\r\n\r\n").await;
        let _ = server_side.write_all(response.as_bytes()).await;
        server_side.shutdown().await.unwrap();
        let answer = String::from_utf8(read_all(&mut client).await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 "), "{response:.50?}: {answer}");
        assert!(answer.contains(&format!("\r\n\r\n{reason}: ")), "{response:.50?}: {answer}");
        assert_eq!(harness.events(), [(reason, Some("good.example".to_owned()))]);
        assert!(harness.connection_counts().contains(r#"decision="failed"} 1"#));
    }
}

/// Only the client knows whether the request may be repeated.
#[tokio::test]
async fn a_kept_connection_that_ends_instead_of_an_answer_ends_the_clients() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    send_text(&mut client, "GET /1 HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
    let (_, mut server_side) = serve_next(&server, OK_RESPONSE).await;
    expect_bytes(&mut client, OK_RESPONSE.as_bytes()).await;
    send_text(&mut client, "POST /2 HTTP/1.1\r\nHost: good.example\r\nContent-Length: 0\r\n\r\n")
        .await;
    read_until(&mut server_side, "\r\n\r\n").await;
    drop(server_side);
    assert!(is_reset(&mut client).await);
    assert!(harness.events().is_empty());
}

#[tokio::test]
async fn odd_answers_pass() {
    let many: String = (0..250).map(|n| format!("X-{n}: {n}\r\n")).collect();
    for (odd, expected) in [
        (many.as_str(), "X-249: 249\r\n"),
        ("X-Folded: one\r\n two\r\n", "X-Folded: one two\r\n"),
        ("X-Spaced : 1\r\n", "X-Spaced: 1\r\n"),
        ("no field at all\r\nX-After: 1\r\n", "X-After: 1\r\n"),
        ("X-Latin: caf\u{e9}\r\n", "X-Latin: caf"),
    ] {
        let harness = http_harness(&["good.example"]).await;
        let server = harness.listen("good.example", "203.0.113.1", 80).await;
        let mut client = harness.connect().await;
        send_text(&mut client, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
        let response = format!("HTTP/1.1 200 OK\r\n{odd}Content-Length: 2\r\n\r\nok");
        let (_, _server_side) = serve_next(&server, &response).await;
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(expected), "{odd:.50?}: {head}");
        expect_bytes(&mut client, b"ok").await;
    }
}

#[tokio::test]
async fn of_an_answer_with_chunks_and_a_length_the_chunks_count() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    send_text(&mut client, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
                2\r\nok\r\n0\r\n\r\n";
    let (_, _server_side) = serve_next(&server, response).await;
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(!head.to_lowercase().contains("content-length"), "{head}");
    expect_bytes(&mut client, b"2\r\nok\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn odd_names_are_asked_for() {
    let harness = http_harness(&["*.example"]).await;
    for name in ["my_bucket.s3.example", "-a.example", "a-.b.example"] {
        let server = harness.listen(name, "203.0.113.1", 80).await;
        let mut client = harness.connect().await;
        send_text(&mut client, &format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
        let (head, _server_side) = serve_next(&server, OK_RESPONSE).await;
        assert!(head.contains(&format!("Host: {name}\r\n")), "{head}");
        expect_bytes(&mut client, OK_RESPONSE.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_cut_answer_is_not_taken_for_a_whole_one() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    for version in ["1.0", "1.1"] {
        let mut client = harness.connect().await;
        send_text(&mut client, &format!("GET / HTTP/{version}\r\nHost: good.example\r\n\r\n"))
            .await;
        let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let (_, server_side) = serve_next(&server, response).await;
        read_until(&mut client, "hello").await;
        drop(server_side);
        assert!(is_reset(&mut client).await, "{version}");
    }
}

#[tokio::test]
async fn a_client_that_disconnects_closes_its_upstream_connection() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    // Before the response, and during it.
    for response in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"] {
        let mut client = harness.connect().await;
        send_text(&mut client, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
        let (_, mut server_side) = serve_next(&server, response).await;
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let _ = read_all(&mut server_side).await;
        wait_until("it is over", || harness.active() == 0).await;
    }
    assert!(harness.events().is_empty());
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_its_answer() {
    let harness = http_harness(&["good.example"]).await;
    let server = harness.listen("good.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    send_text(&mut client, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
    client.shutdown().await.unwrap();
    let mut server_side = accept_next(&server).await;
    read_until(&mut server_side, "\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    send_text(&mut server_side, OK_RESPONSE).await;
    expect_bytes(&mut client, OK_RESPONSE.as_bytes()).await;
}

#[tokio::test]
async fn a_refusal_is_read_even_by_a_client_that_goes_on_sending() {
    let harness = http_harness(&["good.example"]).await;
    let mut client = harness.connect().await;
    send_text(
        &mut client,
        "POST / HTTP/1.1\r\nHost: bad.example\r\nContent-Length: 500000\r\n\r\n",
    )
    .await;
    let _ = client.write_all(&vec![b'x'; 500_000]).await;
    let answer = read_until(&mut client, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn a_new_policy_resets_requests_in_flight() {
    let harness = http_harness(&["a.example", "b.example"]).await;
    let server = harness.listen("a.example", "203.0.113.1", 80).await;
    let mut client = harness.connect().await;
    send_text(&mut client, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let mut server_side = accept_next(&server).await;
    read_until(&mut server_side, "\r\n\r\n").await;
    harness.proxy.update_policy(harness.slot, &policy_allowing(&["a.example"]));
    send_text(&mut server_side, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx").await;
    read_until(&mut client, "\r\n\r\nx").await;
    harness.proxy.update_policy(harness.slot, &policy_allowing(&["b.example"]));
    assert!(is_reset(&mut client).await && is_reset(&mut server_side).await);
}
