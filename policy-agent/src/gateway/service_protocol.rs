//! Remembers whether the services of a sandbox speak HTTP/2. It is found out when a request needs
//! it, and again when a service has changed.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::{Request, Version, header};

use super::connection_pool::PoolKey;
use crate::net::hop_by_hop::list_members;

/// Maximum number of ports that are remembered for a sandbox.
const MAX_PORTS: usize = 256;
/// How long a service is not asked again for a request that only prefers HTTP/2.
const RETRY_PREFERRED: Duration = Duration::from_secs(600);
/// The same for a gRPC request, which HTTP/1 cannot serve.
const RETRY_GRPC: Duration = Duration::from_secs(5);

/// How a request may use HTTP/2 towards the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Http2Use {
    /// Not at all.
    Never,
    /// If the service is known to speak it.
    IfKnown,
    /// If the service speaks it. A service found not to is asked again after this time.
    IfSpoken {
        /// Until a service is asked again.
        retry_after: Duration,
    },
    /// The operator says that the service speaks nothing else.
    Always,
}

impl Http2Use {
    /// The use for a client's request to a port. `http2_ports` speak nothing else.
    pub(super) fn for_request<B>(request: &Request<B>, port: u16, http2_ports: &[u16]) -> Self {
        let headers = request.headers();
        if request.version() < Version::HTTP_2 && headers.contains_key(header::UPGRADE) {
            return Self::Never;
        }
        if http2_ports.contains(&port) {
            return Self::Always;
        }
        if request.version() < Version::HTTP_2 {
            return Self::Never;
        }
        if headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes())) {
            return Self::IfSpoken { retry_after: RETRY_GRPC };
        }
        let is_trailers = |coding: &str| coding.eq_ignore_ascii_case("trailers");
        if list_members(headers, header::TE).any(is_trailers) {
            return Self::IfSpoken { retry_after: RETRY_PREFERRED };
        }
        Self::IfKnown
    }
}

/// Whether a content type is gRPC's. gRPC-Web also works over HTTP/1.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.to_ascii_lowercase();
    let rest = rest.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b'+' | b';' | b' ')))
}

#[derive(Clone, Copy, Debug)]
enum ServiceProtocol {
    Http1,
    Http2,
    /// A request over HTTP/1 got no valid response.
    Unclear,
}

/// The protocols of the services of one sandbox.
#[derive(Debug, Default)]
pub(super) struct ServiceProtocols(Mutex<HashMap<PoolKey, (ServiceProtocol, Instant)>>);

impl ServiceProtocols {
    /// Whether to connect to the service with HTTP/2.
    pub(super) fn try_http2(&self, key: PoolKey, http2_use: Http2Use) -> bool {
        let protocols = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = protocols.get(&key).map(|(protocol, since)| (*protocol, since.elapsed()));
        match (http2_use, known) {
            (Http2Use::Never, _) => false,
            (Http2Use::IfKnown, known) => matches!(known, Some((ServiceProtocol::Http2, _))),
            (Http2Use::IfSpoken { retry_after }, Some((ServiceProtocol::Http1, age))) => {
                age >= retry_after
            }
            _ => true,
        }
    }

    /// Remembers whether the service speaks HTTP/2.
    pub(super) fn record(&self, key: PoolKey, is_http2: bool) {
        self.insert(key, if is_http2 { ServiceProtocol::Http2 } else { ServiceProtocol::Http1 });
    }

    /// Remembers that the service did not answer a request over HTTP/1, for example because it has
    /// been replaced by one that speaks HTTP/2 only.
    pub(super) fn record_http1_failure(&self, key: PoolKey) {
        self.insert(key, ServiceProtocol::Unclear);
    }

    fn insert(&self, key: PoolKey, protocol: ServiceProtocol) {
        let mut protocols = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if protocols.len() >= MAX_PORTS && !protocols.contains_key(&key) {
            let oldest = protocols.iter().min_by_key(|(_, (_, since))| *since).map(|(key, _)| *key);
            oldest.map(|oldest| protocols.remove(&oldest));
        }
        protocols.insert(key, (protocol, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http2_use(version: Version, fields: &[(&str, &str)]) -> Http2Use {
        let request = Request::builder().version(version);
        let request = fields.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        let request = request.body(()).expect("a request");
        Http2Use::for_request(&request, 3000, &[50051])
    }

    const fn key(port: u16) -> PoolKey {
        PoolKey { backend_id: 1, port, is_tls: false }
    }

    #[test]
    fn only_requests_that_need_it_ask_for_http2() {
        let is_asked = |http2_use| matches!(http2_use, Http2Use::IfSpoken { .. });
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC; x=y"] {
            assert!(is_asked(http2_use(Version::HTTP_2, &[("content-type", kind)])), "{kind}");
            let over_http1 = http2_use(Version::HTTP_11, &[("content-type", kind)]);
            assert_eq!(over_http1, Http2Use::Never);
        }
        assert!(is_asked(http2_use(Version::HTTP_2, &[("te", "trailers")])));
        for fields in [&[][..], &[("content-type", "application/grpc-web")], &[("te", "gzip")]] {
            assert_eq!(http2_use(Version::HTTP_2, fields), Http2Use::IfKnown, "{fields:?}");
        }
    }

    #[test]
    fn ports_of_the_operators_list_are_not_asked() {
        let at = |version, upgrade: bool| {
            let request = Request::builder().version(version);
            let request = if upgrade { request.header("upgrade", "x") } else { request };
            Http2Use::for_request(&request.body(()).expect("a request"), 50051, &[50051])
        };
        assert_eq!(at(Version::HTTP_11, false), Http2Use::Always);
        assert_eq!(at(Version::HTTP_2, false), Http2Use::Always);
        assert_eq!(at(Version::HTTP_11, true), Http2Use::Never);
    }

    #[test]
    fn what_was_found_out_is_remembered_until_it_fails() {
        let protocols = ServiceProtocols::default();
        let soon = Http2Use::IfSpoken { retry_after: Duration::ZERO };
        let later = Http2Use::IfSpoken { retry_after: RETRY_PREFERRED };
        let tries = |http2_use| protocols.try_http2(key(1), http2_use);
        assert!(tries(later) && !tries(Http2Use::IfKnown));
        protocols.record(key(1), false);
        assert!(!tries(later) && tries(soon) && !tries(Http2Use::IfKnown));
        protocols.record_http1_failure(key(1));
        assert!(tries(later) && !tries(Http2Use::IfKnown));
        protocols.record(key(1), true);
        assert!(tries(later) && tries(Http2Use::IfKnown) && !tries(Http2Use::Never));
    }

    #[test]
    fn the_memory_is_bounded() {
        let protocols = ServiceProtocols::default();
        for port in 0..2 * u16::try_from(MAX_PORTS).expect("small") {
            protocols.record(key(port), true);
        }
        assert_eq!(protocols.0.lock().expect("a lock").len(), MAX_PORTS);
        assert!(!protocols.try_http2(key(0), Http2Use::IfKnown));
        assert!(protocols.try_http2(key(511), Http2Use::IfKnown));
    }
}
