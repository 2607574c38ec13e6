//! The HTTP library reads the same requests from the forwarded bytes as the framer.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::BytesMut;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    header::{HeaderValue, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::Mutex,
    time::timeout,
};

use super::{
    super::{
        framing_guard::{FramingGuard, FramingGuardHandle},
        request_framer::RequestFramer,
    },
    split_requests::{frame_in_pieces, hostile_requests},
};
use crate::fuzz::cases_or;

/// A request as parsed by one reader. The body is `None` if it was truncated or invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ParsedRequest {
    method: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

impl ParsedRequest {
    /// Parses one complete request independently of hyper. Its head must be valid.
    fn parse(request: &[u8]) -> Self {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut head = httparse::Request::new(&mut fields);
        let length = head.parse(request).expect("a head").unwrap();
        let method = head.method.expect("a method").to_owned();
        let fields = head.headers.iter();
        let fields = fields.map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
        let mut fields: Vec<_> = fields.collect();
        fields.sort();
        let has = |name: &str| fields.iter().find(|field| field.0 == name);
        let (body, length) = (&request[length..], has("content-length"));
        let body = if has("transfer-encoding").is_some() {
            decode_chunked(body)
        } else {
            let length = length.map_or("0", |(_, digits)| std::str::from_utf8(digits).unwrap());
            body.get(..length.parse().unwrap_or(usize::MAX)).map(<[u8]>::to_vec)
        };
        Self { method, fields, body }
    }
}

fn decode_chunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?.split(';').next()?.to_owned();
        let size = usize::from_str_radix(&size, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            let ends = bytes.starts_with(b"\r\n") || bytes.ends_with(b"\r\n\r\n");
            return ends.then_some(body);
        }
        body.extend(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

/// The requests that the HTTP library reads from these bytes of a client.
async fn read_with_hyper(
    bytes: &[u8],
    lengths: &[usize],
    accepts_upgrade: bool,
) -> Vec<ParsedRequest> {
    let (client, server) = duplex(4096);
    let (guard_handle, reads) =
        (FramingGuardHandle::default(), Arc::<Mutex<Vec<ParsedRequest>>>::default());
    let io = TokioIo::new(FramingGuard::new(
        server,
        BytesMut::new(),
        RequestFramer::default(),
        guard_handle.clone(),
    ));
    let service = service_fn(|request: Request<Incoming>| {
        let (guard_handle, reads) = (guard_handle.clone(), Arc::clone(&reads));
        async move {
            let offers_upgrade =
                request.headers().contains_key(UPGRADE) && request.body().is_end_stream();
            let (head, body) = request.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            let (method, fields) = (head.method.to_string(), sorted_fields(&head.headers));
            let is_fault = method == "CONNECT";
            if !is_fault {
                reads.lock().await.push(ParsedRequest { method, fields, body });
            }
            let mut response = Response::new(Empty::<Bytes>::new());
            if is_fault {
                response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            }
            if offers_upgrade {
                guard_handle.resolve_upgrade(accepts_upgrade);
                if accepts_upgrade {
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                }
            }
            Ok::<_, Infallible>(response)
        }
    });
    // The client has sent everything before it gets a response. That alone must not end the last
    // request.
    let ended = guard_handle.clone();
    let served = async {
        let served = http1::Builder::new().serve_connection(io, service).with_upgrades();
        let mut served = std::pin::pin!(served);
        tokio::select! {
            biased;
            served = served.as_mut() => return served,
            () = ended.requests_ended() => served.as_mut().graceful_shutdown(),
        }
        served.await
    };
    let both = async { tokio::join!(served, send_in_pieces(client, bytes, lengths)) };
    // Nothing waits without end: every offered upgrade gets a response.
    let _ = timeout(Duration::from_secs(20), both).await.expect("an end");
    reads.lock().await.clone()
}

async fn send_in_pieces(client: DuplexStream, bytes: &[u8], lengths: &[usize]) {
    let (mut responses, mut client) = tokio::io::split(client);
    let write = async {
        let (mut rest, mut lengths) = (bytes, lengths.iter().cycle());
        while !rest.is_empty() {
            let length = lengths.next().copied().unwrap_or(usize::MAX);
            let (piece, more) = rest.split_at(length.min(rest.len()));
            if client.write_all(piece).await.is_err() {
                break;
            }
            rest = more;
        }
        let _ = client.shutdown().await;
    };
    let mut response = Vec::new();
    let _ = tokio::join!(write, responses.read_to_end(&mut response));
}

fn sorted_fields(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let fields = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let mut fields: Vec<_> = fields.collect();
    fields.sort();
    fields
}

fn hyper_reads(bytes: &[u8], lengths: &[usize], accepts_upgrade: bool) -> Vec<ParsedRequest> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(read_with_hyper(bytes, lengths, accepts_upgrade))
}

#[test]
fn all_good_requests_are_read() {
    let text = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2;x=y\r\nab\r\n3\r\ncde\r\n0\r\nT: v\r\n\r\n\
                 POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nfgGET / HTTP/1.1\r\nUpgrade: x\r\n\r\n\
                 GET / HTTP/1.1\r\n\r\n";
    let framed = frame_in_pieces(text, &[7], false);
    let expected: Vec<ParsedRequest> = framed.requests().map(ParsedRequest::parse).collect();
    let bodies = expected.iter().map(|read| read.body.clone().expect("a body"));
    assert_eq!(bodies.collect::<Vec<_>>(), [&b"abcde"[..], b"fg", b"", b""]);
    assert_eq!(hyper_reads(text, &[7], false), expected);
}

proptest! {
    #![proptest_config(cases_or(256))]

    #[test]
    fn the_library_reads_the_requests_that_were_followed(
        bytes in hostile_requests(),
        lengths in prop::collection::vec(1_usize..300, 1..6),
        accepts_upgrade: bool,
    ) {
        let framed = frame_in_pieces(&bytes, &[usize::MAX], accepts_upgrade);
        let expected: Vec<ParsedRequest> = framed.requests().map(ParsedRequest::parse).collect();
        let reads = hyper_reads(&bytes, &lengths, accepts_upgrade);
        // The library may stop earlier (at `Connection: close`, or at an invalid target), but reads
        // no other requests.
        prop_assert!(reads.len() <= expected.len(), "{reads:?} of {expected:?}");
        for (index, (read, expected)) in reads.iter().zip(&expected).enumerate() {
            prop_assert_eq!((&read.method, &read.fields), (&expected.method, &expected.fields));
            match &read.body {
                Some(_) => prop_assert_eq!(&read.body, &expected.body),
                None => prop_assert_eq!(index, reads.len() - 1, "nothing follows what is wrong"),
            }
        }
    }
}
