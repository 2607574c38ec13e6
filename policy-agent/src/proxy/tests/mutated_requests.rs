//! Tests with randomly mutated requests. PROPTEST_CASES sets the number of cases.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Mutex,
    time::{Duration, timeout},
};

use super::harness::{ProxyHarness, policy_allowing, test_timeouts};
use crate::{policy::Floor, proxy::ProxyTimeouts};

/// Fragments of requests, valid and invalid.
const PIECES: [&str; 40] = [
    "GET / HTTP/1.1\r\n",
    "POST /x HTTP/1.1\r\n",
    "GET http://good.example/ HTTP/1.1\r\n",
    "GET http://evil.example/ HTTP/1.1\r\n",
    "HEAD * HTTP/1.0\r\n",
    "CONNECT evil.example:80 HTTP/1.1\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "Host: good.example\r\n",
    "Host: evil.example\r\n",
    "host:good.example:80\r\n",
    "Host: good.example\n",
    "Host : evil.example\r\n",
    " Host: evil.example\r\n",
    "\r\n",
    "\n",
    "\r\n\r\n",
    "\0",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 50\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity, chunked\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "5;x=y\r\nhello\r\n",
    "ffffffffffffffff\r\n",
    "hello",
    "Connection: close\r\n",
    "Connection: Upgrade\r\n",
    "Connection: host\r\n",
    "Upgrade: h2c\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: good.example\r\nContent-Length: 5\r\n\r\nhello",
    "X: y\r\n",
    "POST / HTTP/1.1\r\nHost: good.example\r\nTransfer-Encoding: chunked\r\n\r\n",
    "TE: trailers\r\n",
];

/// The bytes that servers received, per connection.
type CapturedRequests = Arc<Mutex<Vec<Vec<u8>>>>;

/// Answers everything that could be the head of a request, and captures all bytes.
async fn capture_requests(listener: TcpListener, captured: CapturedRequests) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let captured = Arc::clone(&captured);
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            let mut answered = 0;
            while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
                let heads = bytes.windows(4).filter(|window| window == b"\r\n\r\n").count();
                while answered < heads {
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                    answered += 1;
                }
            }
            captured.lock().await.push(bytes);
        });
    }
}

/// Strictly parses the requests that a server received. Returns `None` if that fails.
fn requests(mut bytes: &[u8]) -> Option<Vec<Vec<String>>> {
    let mut requests = Vec::new();
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { break };
        let head = String::from_utf8_lossy(&bytes[..end]); // field values may be any bytes
        bytes = &bytes[end + 4..];
        let lines: Vec<&str> = head.split("\r\n").collect();
        let fields: Option<Vec<(String, String)>> = lines[1..]
            .iter()
            .map(|line| {
                let (name, value) = line.split_once(':')?;
                let good = !name.is_empty() && !name.contains(char::is_whitespace);
                good.then(|| (name.to_ascii_lowercase(), value.trim().to_ascii_lowercase()))
            })
            .collect();
        let fields = fields?;
        let all = |wanted: &str| -> Vec<String> {
            fields.iter().filter(|(name, _)| name == wanted).map(|(_, v)| v.clone()).collect()
        };
        let (lengths, encodings) = (all("content-length"), all("transfer-encoding"));
        if lengths.len() + encodings.len() > 1 {
            return None;
        }
        requests.push(all("host"));
        if let Some(length) = lengths.first() {
            let length: usize = length.parse().ok()?;
            bytes = bytes.get(length..).unwrap_or_default();
        } else if !encodings.is_empty() {
            bytes = after_chunks(bytes)?;
        }
    }
    Some(requests)
}

fn after_chunks(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else {
            return Some(&[]);
        };
        let length = std::str::from_utf8(&bytes[..end]).ok()?;
        let length = usize::from_str_radix(length, 16).ok()?;
        bytes = &bytes[end + 2..];
        if length == 0 {
            return bytes.strip_prefix(b"\r\n").or(Some(&[]));
        }
        bytes = bytes.get(length + 2..).unwrap_or_default();
    }
}

/// Sends the bytes to a new sandbox's proxy in pieces of these lengths. Returns what its only
/// server received.
async fn send_in_pieces(bytes: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
    let timeouts = ProxyTimeouts {
        name_detection: Duration::from_millis(50),
        linger: Duration::ZERO,
        ..test_timeouts()
    };
    let active_policy = policy_allowing(&["good.example"]);
    let harness =
        ProxyHarness::with_settings(&active_policy, "192.0.2.66:80", Floor::default(), timeouts, 8)
            .await;
    let listener = harness.listen("good.example", "203.0.113.1", 80).await;
    harness.set_name("evil.example", &["203.0.113.1"]);
    let captured = CapturedRequests::default();
    let server = tokio::spawn(capture_requests(listener, Arc::clone(&captured)));
    let mut client = harness.connect().await;
    let mut rest = bytes;
    for length in pieces.iter().cycle().take(64) {
        let (piece, more) = rest.split_at((*length).min(rest.len()));
        if client.write_all(piece).await.is_err() {
            break;
        }
        rest = more;
        tokio::task::yield_now().await;
    }
    let _ = client.write_all(rest).await;
    let _ = client.shutdown().await;
    let _ = timeout(Duration::from_millis(200), client.read_to_end(&mut Vec::new())).await;
    drop(client);
    super::harness::wait_until("it is over", || harness.active() == 0).await;
    server.abort();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let captured = captured.lock().await;
    captured.clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(64), ..ProptestConfig::default() })]

    #[test]
    fn no_server_sees_a_request_that_was_not_judged(
        parts in prop::collection::vec(prop::sample::select(&PIECES[..]), 1..12),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        pieces in prop::collection::vec(1_usize..80, 1..6),
    ) {
        let mut bytes = parts.concat().into_bytes();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let captured = runtime.block_on(send_in_pieces(&bytes, &pieces));
        for bytes in captured {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let upgraded = text.to_lowercase().contains("\r\nupgrade:");
            let hosts = requests(&bytes);
            prop_assert!(hosts.is_some(), "{text:?}");
            for host in hosts.unwrap() {
                let good = matches!(&host[..], [one] if one.split(':').next() == Some("good.example"));
                prop_assert!(good || upgraded, "{host:?} in {text:?}");
            }
        }
    }
}

/// The number of cases from PROPTEST_CASES, or `fallback`.
fn cases(fallback: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(fallback)
}
