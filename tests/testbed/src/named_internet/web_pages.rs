//! What the web servers show: who they are and what they were asked, large bodies, slow ones, and a
//! WebSocket, with a page that opens it.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{
        Path, Request, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::header::HOST,
    response::{Html, IntoResponse as _, Response},
    routing::{any, get, post},
};
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Between the parts of a slow page.
const SLOW_PAUSE: Duration = Duration::from_millis(150);
/// Parts of a slow page.
const SLOW_PARTS: usize = 5;
/// Bytes that are made at a time.
const BLOCK_BYTES: usize = 65_536;

/// A page whose loading is done when `/socket` has sent back what the page says there, or has failed
/// to. What the page was opened with is a part of all its URLs.
const ECHO_PAGE: &str = "<!doctype html><title>echoing</title><p id=echo>nothing yet</p>
<iframe id=held></iframe>
<script>
held.src = '/never' + location.search;
const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/socket' + location.search);
const done = text => { echo.textContent = text; held.remove(); };
socket.onopen = () => socket.send('a browser');
socket.onmessage = event => done('sent back: ' + event.data);
socket.onerror = () => done('the socket failed');
</script>
";

/// Which server a connection has come to, and how.
#[derive(Clone)]
pub(super) struct PageContext {
    pub server: SocketAddr,
    pub peer: SocketAddr,
    pub sni: Option<String>,
}

/// The pages of a server.
pub(super) fn page_router(place: PageContext) -> Router {
    Router::new()
        .route("/bytes/{length}", get(random_bytes))
        .route("/digest", post(upload_digest))
        .route("/slowly", get(slow_body))
        .route("/socket", any(echo_web_socket))
        .route("/echoing", get(async || Html(ECHO_PAGE)))
        .route(
            "/never",
            get(async || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())),
        )
        .fallback(describe_request)
        .with_state(place)
}

/// Who answers, and what was asked.
async fn describe_request(State(place): State<PageContext>, request: Request) -> Json<Value> {
    let hosts = request.headers().get_all(HOST).iter();
    let hosts: Vec<_> = hosts.map(|host| String::from_utf8_lossy(host.as_bytes())).collect();
    Json(json!({
        "server": place.server.ip(),
        "port": place.server.port(),
        "peer": place.peer.ip(),
        "sni": place.sni,
        "host": hosts.join(", "),
        "target": request.uri().to_string(),
        "method": request.method().as_str(),
        "version": format!("{:?}", request.version()),
    }))
}

/// So many bytes, chunked.
async fn random_bytes(Path(length): Path<usize>) -> Body {
    let blocks = stream::iter(random_blocks(length)).map(Ok::<_, Infallible>);
    Body::from_stream(blocks)
}

/// Length and digest of what is uploaded.
async fn upload_digest(request: Request) -> Response {
    let (mut body, mut digest, mut length) = (request.into_body(), Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => {
                length += data.len();
                digest.update(&data);
            }
            Ok(Err(_)) => {}
            Err(error) => return error.to_string().into_response(),
        }
    }
    Json(json!({ "length": length, "sha256": hex(&digest.finalize()) })).into_response()
}

async fn slow_body() -> Body {
    Body::from_stream(slow_parts())
}

fn slow_parts() -> impl Stream<Item = Result<String, Infallible>> {
    stream::iter(1..=SLOW_PARTS).then(|part| async move {
        tokio::time::sleep(SLOW_PAUSE).await;
        Ok(format!("part {part}\n"))
    })
}

/// Sends back what it gets.
async fn echo_web_socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket: WebSocket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            let Message::Close(_) = message else {
                if socket.send(message).await.is_err() {
                    return;
                }
                continue;
            };
            return;
        }
    })
}

/// So many bytes in which no two blocks are alike; always the same.
pub fn random_blocks(length: usize) -> impl Iterator<Item = Bytes> + Send {
    let mut rng = fastrand::Rng::with_seed(length as u64);
    let mut left = length;
    std::iter::from_fn(move || {
        let mut block = vec![0; left.min(BLOCK_BYTES)];
        rng.fill(&mut block);
        left -= block.len();
        (!block.is_empty()).then(|| Bytes::from(block))
    })
}

/// The digest of [`random_blocks`] of a length.
pub fn random_blocks_digest(length: usize) -> String {
    let mut digest = Sha256::new();
    for block in random_blocks(length) {
        digest.update(&block);
    }
    hex(&digest.finalize())
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
