//! The pages of the web servers: descriptions of the server and the request, large bodies, slow
//! bodies, and a WebSocket with a page that opens it.

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

/// The size of the largest bodies of tests in bytes. An agent built without optimisation takes
/// several seconds for one, so tests send it once in each direction and HTTP version.
pub const LARGEST_BODY_BYTES: usize = 100_000_000;
/// The size of large bodies of tests in bytes: more than all buffers on the path hold.
pub const LARGE_BODY_BYTES: usize = 8_000_000;
/// The pause between the parts of a slow page.
const SLOW_PAUSE: Duration = Duration::from_millis(150);
/// The number of parts of a slow page.
const SLOW_PARTS: usize = 5;
/// The size of a block of random bytes.
const BLOCK_BYTES: usize = 65_536;

/// A page that is complete when `/socket` has echoed its text or has failed to. The page adds its
/// own query string to all its URLs.
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

/// The server and protocol of a connection.
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

/// Describes the server and the request.
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

/// A chunked body of `length` random bytes.
async fn random_bytes(Path(length): Path<usize>) -> Body {
    let blocks = stream::iter(random_blocks(length)).map(Ok::<_, Infallible>);
    Body::from_stream(blocks)
}

/// Length and digest of an upload.
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

/// Echoes messages.
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

/// Returns `length` bytes in blocks that all differ. The bytes are always the same.
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

/// Formats bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
