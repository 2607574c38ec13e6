//! Clients in a sandbox that trust the sandbox's own authority, and nothing else.

use std::{convert::Infallible, io::Write as _, path::PathBuf, sync::Arc};

use http_body_util::{BodyExt as _, Empty, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http2,
    ext::Protocol,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy_testbed::{
    named_internet::{certificate_authority::client_config_for, curl::CurlCommand},
    network::unique_name,
    probe,
    test_servers::HTTPS_PORT,
    testbed::{OrFail as _, TestSandbox},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
};
use tokio_rustls::TlsConnector;

use super::RuleScenario;

/// The certificate of a sandbox's authority in a file, which goes with the testbed.
#[track_caller]
pub(super) fn authority_file(sandbox: &TestSandbox) -> PathBuf {
    let files = sandbox.testbed.named_internet().client_files();
    let path = files.join(unique_name("authority"));
    let mut file = std::fs::File::create(&path).or_fail("a file");
    file.write_all(sandbox.fetch_authority().as_bytes()).or_fail("writing it");
    path
}

#[track_caller]
pub(super) fn trusting_curl<'a>(sandbox: &'a TestSandbox, url: &str) -> CurlCommand<'a> {
    let authority = authority_file(sandbox);
    sandbox.curl(url).with_arguments(&["--cacert", &authority.to_string_lossy()])
}

/// A TLS configuration that trusts the sandbox's authority.
#[track_caller]
pub(super) fn trusting_config(sandbox: &TestSandbox, alpn: &[&[u8]]) -> ClientConfig {
    let mut config = client_config_for(&sandbox.fetch_authority()).or_fail("a configuration");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A TLS connection to the server of a scenario, for tests that write HTTP/1.1 themselves.
pub(super) type TlsClient = rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>;

#[track_caller]
pub(super) fn connect_tls(scenario: &RuleScenario) -> TlsClient {
    let stream = connect(scenario);
    let config = trusting_config(&scenario.sandbox, &[b"http/1.1"]);
    let client = rustls::ClientConnection::new(config.into(), server_name(scenario));
    rustls::StreamOwned::new(client.or_fail("a client"), stream)
}

/// The body of a request.
pub(super) type ClientBody = BoxBody<Bytes, Infallible>;

/// An HTTP/2 connection to the server of a scenario.
pub(super) struct Http2Client {
    runtime: Runtime,
    sender: http2::SendRequest<ClientBody>,
}

impl Http2Client {
    #[track_caller]
    pub(super) fn connect(scenario: &RuleScenario) -> Self {
        let config = trusting_config(&scenario.sandbox, &[b"h2"]);
        let stream = connect(scenario);
        stream.set_nonblocking(true).or_fail("not waiting");
        let runtime = Runtime::new().or_fail("a runtime");
        let sender = runtime.block_on(async {
            let stream = TcpStream::from_std(stream).or_fail("a stream");
            let connector = TlsConnector::from(Arc::new(config));
            let stream = connector.connect(server_name(scenario), stream).await;
            let stream = TokioIo::new(stream.or_fail("a TLS handshake"));
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.or_fail("shaking hands");
            // Errors of the connection also appear as errors of its requests.
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// Sends a request, and returns the head of its response and its body.
    #[track_caller]
    pub(super) fn request(&mut self, request: Request<ClientBody>) -> (Response<()>, String) {
        let answered = self.runtime.block_on(async {
            let response: Response<Incoming> = self.sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>((Response::from_parts(head, ()), body))
        });
        let (head, body) = answered.or_fail("a response");
        (head, String::from_utf8_lossy(&body).into_owned())
    }

    /// Sends a `GET` request for a URL.
    #[track_caller]
    pub(super) fn get(&mut self, url: &str) -> (Response<()>, String) {
        self.request(Request::get(url).body(empty_body()).or_fail("a request"))
    }

    /// Sends a request, and returns the trailers of its response.
    #[track_caller]
    pub(super) fn trailers_of(&mut self, request: Request<ClientBody>) -> HeaderMap {
        let trailers = self.runtime.block_on(async {
            let response = self.sender.send_request(request).await?;
            Ok::<_, hyper::Error>(response.into_body().collect().await?.trailers().cloned())
        });
        trailers.or_fail("a response").or_fail("trailers")
    }

    /// Opens a WebSocket (RFC 8441), sends bytes, and reads as many.
    #[track_caller]
    pub(super) fn echo_over_connect(&mut self, url: &str, bytes: &[u8]) -> Vec<u8> {
        let mut request = Request::connect(url).body(empty_body()).or_fail("a request");
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let echo = self.runtime.block_on(async {
            let response = self.sender.send_request(request).await.or_fail("a response");
            assert_eq!(response.status(), 200);
            let upgraded = hyper::upgrade::on(response).await.or_fail("a stream");
            let (mut stream, mut echo) = (TokioIo::new(upgraded), vec![0; bytes.len()]);
            stream.write_all(bytes).await?;
            stream.read_exact(&mut echo).await?;
            Ok::<_, std::io::Error>(echo)
        });
        echo.or_fail("an echo")
    }
}

pub(super) fn empty_body() -> ClientBody {
    Empty::new().boxed()
}

#[track_caller]
fn connect(scenario: &RuleScenario) -> std::net::TcpStream {
    let to = (scenario.origin.site.v4, HTTPS_PORT).into();
    probe::connect(&scenario.sandbox.namespace, to).or_fail("connecting")
}

#[track_caller]
fn server_name(scenario: &RuleScenario) -> ServerName<'static> {
    scenario.name().to_owned().try_into().or_fail("a name")
}
