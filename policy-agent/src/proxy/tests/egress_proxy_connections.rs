//! `egressProxy`.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{
    harness::{
        ProxyHarness, accept_next, expect_bytes, is_reset, policy_from_json, read_alert, read_all,
        test_timeouts, wait_until,
    },
    hello_builder::client_hello,
};
use crate::{agent::ActivePolicy, agent::ProxyControl as _, policy::Floor};

const PROXY: &str = "203.0.113.9";

fn policy_via_proxy(proxy: &str) -> Arc<ActivePolicy> {
    policy_via_proxy_under(&Floor::default(), proxy)
}

fn policy_via_proxy_under(floor: &Floor, proxy: &str) -> Arc<ActivePolicy> {
    let network = format!(
        r#"{{"allowOut":["good.example","198.51.100.0/24"],"denyOut":["0.0.0.0/0"],
            "egressProxy":{{{proxy}}}}}"#
    );
    policy_from_json(&network, floor)
}

async fn proxied_harness(proxy: &str, destination: &str) -> (ProxyHarness, TcpListener) {
    let harness = ProxyHarness::new(&policy_via_proxy(proxy), destination).await;
    let listener = harness.listen("proxy.example", PROXY, 1080).await;
    (harness, listener)
}

/// The proxy's side of RFC 1928 and RFC 1929. Returns the requested destination.
async fn serve_socks5<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<&str>,
) -> Vec<u8> {
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).await.unwrap();
    let mut methods = vec![0; usize::from(greeting[1])];
    stream.read_exact(&mut methods).await.unwrap();
    let method = if login.is_some() { 2 } else { 0 };
    assert!(greeting[0] == 5 && methods.contains(&method), "{methods:?}");
    stream.write_all(&[5, method]).await.unwrap();
    if let Some(login) = login {
        let mut credentials = vec![0; login.len() + 2];
        stream.read_exact(&mut credentials).await.unwrap();
        let (name, password) = login.split_once(':').unwrap();
        let expected = [vec![1], length_prefixed(name), length_prefixed(password)].concat();
        assert_eq!(credentials, expected);
        stream.write_all(&[1, 0]).await.unwrap();
    }
    let mut request = vec![0; 5];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..3], [5, 1, 0]);
    let rest = match request[3] {
        1 => 4 + 2 - 1,
        3 => usize::from(request[4]) + 2,
        4 => 16 + 2 - 1,
        other => panic!("address type {other}"),
    };
    let mut more = vec![0; rest];
    stream.read_exact(&mut more).await.unwrap();
    request.extend(more);
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    request[3..].to_vec()
}

/// A name and a port in SOCKS5 encoding.
fn socks5_domain(name: &str, port: u16) -> Vec<u8> {
    [vec![3], length_prefixed(name), port.to_be_bytes().to_vec()].concat()
}

/// A string after its length in one byte.
fn length_prefixed(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short string");
    [&[length], text.as_bytes()].concat()
}

#[tokio::test]
async fn a_name_goes_through_as_a_name_and_an_address_as_an_address() {
    let (harness, proxy) =
        proxied_harness(r#""address":"proxy.example:1080""#, "192.0.2.66:443").await;
    let mut client = harness.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    let mut server_side = accept_next(&proxy).await;
    assert_eq!(serve_socks5(&mut server_side, None).await, socks5_domain("good.example", 443));
    expect_bytes(&mut server_side, &client_hello("good.example")[..5]).await;

    // For example SSH, where the server sends first.
    *harness.network.destination.lock().unwrap() = Some("198.51.100.7:22".parse().unwrap());
    let mut client = harness.connect().await;
    let mut server_side = accept_next(&proxy).await;
    assert_eq!(serve_socks5(&mut server_side, None).await, [1, 198, 51, 100, 7, 0, 22]);
    server_side.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    expect_bytes(&mut client, b"SSH-2.0-x\r\n").await;
    assert!(harness.connection_counts().contains(r#"protocol="tcp",decision="allowed"} 1"#));

    // An address on port 443 that line 6 allows is not decided by name.
    *harness.network.destination.lock().unwrap() = Some("198.51.100.7:443".parse().unwrap());
    let _client = harness.connect().await;
    let mut server_side = accept_next(&proxy).await;
    assert_eq!(serve_socks5(&mut server_side, None).await, [1, 198, 51, 100, 7, 1, 187]);
    let direct = "203.0.113.9:1080".parse().unwrap();
    assert!(harness.network.dialed.lock().unwrap().iter().all(|dialed| *dialed == direct));
}

#[tokio::test]
async fn http_goes_through_too_and_logs_in() {
    let login = r#""address":"203.0.113.9:1080","username":"me","password":"hunter2""#;
    let (harness, proxy) = proxied_harness(login, "192.0.2.66:80").await;
    let mut client = harness.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await.unwrap();
    let mut server_side = accept_next(&proxy).await;
    assert_eq!(
        serve_socks5(&mut server_side, Some("me:hunter2")).await,
        socks5_domain("good.example", 80)
    );
    expect_bytes(&mut server_side, b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n").await;
    server_side.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    expect_bytes(&mut client, b"HTTP/1.1 204 No Content\r\n\r\n").await;
}

#[tokio::test]
async fn whatever_fails_nothing_goes_past_it() {
    for (proxy, response) in [
        (r#""address":"proxy.example:1080""#, Some(&b"\x05\xff"[..])), // no acceptable method
        (r#""address":"proxy.example:1080""#, Some(&b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0"[..])),
        (r#""address":"proxy.example:1080""#, Some(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..])),
        (r#""address":"proxy.example:1080""#, Some(&b""[..])), // no response
        (r#""address":"proxy.example:1081""#, None),           // refused
        (r#""address":"unknown.example:1080""#, None),
        (r#""address":"private.example:1080""#, None),
        (r#""address":"host.example:1080""#, None),
        (r#""address":"proxy.example:1080","tls":true"#, Some(&b"\x05\x00"[..])),
    ] {
        for destination in ["192.0.2.66:443", "198.51.100.7:22"] {
            let (harness, listener) = proxied_harness(proxy, destination).await;
            harness.set_name("private.example", &["10.0.0.9"]);
            harness.set_name("host.example", &["203.0.113.77"]);
            harness.network.host_addresses.lock().unwrap().insert("203.0.113.77".parse().unwrap());
            let direct = harness.listen("good.example", "203.0.113.1", 443).await;
            harness.set_server("198.51.100.7:22", direct.local_addr().unwrap());
            let mut client = harness.connect().await;
            client.write_all(&client_hello("good.example")).await.unwrap();
            let mut server_side: Option<TcpStream> = None;
            if let Some(response) = response {
                let stream = server_side.insert(accept_next(&listener).await);
                stream.write_all(response).await.unwrap();
            }
            match destination.ends_with(":443") {
                true => assert_eq!(read_alert(&mut client).await, 80, "{proxy}"),
                false => assert!(is_reset(&mut client).await, "{proxy}"),
            }
            assert_eq!(harness.first_event().await.reason, "egress_proxy_failed", "{proxy}");
            assert!(harness.connection_counts().contains(r#"decision="failed"} 1"#));
            let dialed = harness.network.dialed.lock().unwrap().clone();
            assert!(dialed.iter().all(|at| at.ip() == PROXY.parse::<std::net::IpAddr>().unwrap()));
        }
    }
}

#[tokio::test]
async fn what_the_kernel_would_not_redirect_is_reset() {
    for destination in ["127.0.0.1:4711", "192.0.2.66:22", "10.0.0.1:443"] {
        let (harness, _proxy) =
            proxied_harness(r#""address":"proxy.example:1080""#, destination).await;
        assert!(is_reset(&mut harness.connect().await).await, "{destination}");
        assert!(harness.network.dialed.lock().unwrap().is_empty());
        let plain =
            ProxyHarness::new(&super::harness::policy_allowing(&["good.example"]), destination)
                .await;
        assert!(is_reset(&mut plain.connect().await).await, "{destination}");
    }
}

#[tokio::test]
async fn inside_tls_with_an_own_authority() {
    let generated = rcgen::generate_simple_self_signed(vec!["tls.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(generated.signing_key.serialize_der()));
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![generated.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let pem = generated.cert.pem().replace('\n', "\\n");
    for (name, good) in [("tls.example", true), ("other.example", false)] {
        let proxy = format!(
            r#""address":"proxy.example:1080","tls":{{"serverName":"{name}","ca":"{pem}"}}"#
        );
        let (harness, listener) = proxied_harness(&proxy, "198.51.100.7:22").await;
        let mut client = harness.connect().await;
        let accepted = acceptor.accept(accept_next(&listener).await).await;
        if !good {
            assert!(is_reset(&mut client).await);
            assert_eq!(harness.first_event().await.reason, "egress_proxy_failed");
            continue;
        }
        let mut server_side = accepted.unwrap();
        assert_eq!(serve_socks5(&mut server_side, None).await, [1, 198, 51, 100, 7, 0, 22]);
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 249) as u8).collect();
        let (to_send, expected) = (sent.clone(), sent.clone());
        let (mut read, mut write) = client.into_split();
        tokio::spawn(async move {
            write.write_all(&to_send).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        server_side.read_to_end(&mut received).await.unwrap();
        assert!(received == expected);
        server_side.write_all(b"late").await.unwrap();
        server_side.shutdown().await.unwrap();
        received.clear();
        read.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"late");
        wait_until("it is over", || harness.active() == 0).await;

        // A policy update resets it like any other connection.
        let mut client = harness.connect().await;
        let mut server_side = acceptor.accept(accept_next(&listener).await).await.unwrap();
        serve_socks5(&mut server_side, None).await;
        server_side.write_all(b"x").await.unwrap();
        expect_bytes(&mut client, b"x").await;
        harness
            .proxy
            .update_policy(harness.slot, &super::harness::policy_allowing(&["good.example"]));
        assert!(is_reset(&mut client).await);
    }
}

#[tokio::test]
async fn a_private_proxy_needs_platform_allow() {
    let floor = Floor::new(&["10.0.0.9".to_owned()], None).unwrap();
    let active_policy = policy_via_proxy_under(&floor, r#""address":"private.example:1080""#);
    let harness =
        ProxyHarness::with_settings(&active_policy, "198.51.100.7:22", floor, test_timeouts(), 64)
            .await;
    let proxy = harness.listen("private.example", "10.0.0.9", 1080).await;
    let mut client = harness.connect().await;
    let mut server_side = accept_next(&proxy).await;
    serve_socks5(&mut server_side, None).await;
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server_side).await.unwrap(), b"");
}
