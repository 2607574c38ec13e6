//! Connections to port 443.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    harness::{
        ProxyHarness, accept_next, expect_bytes, is_reset, policy_allowing, read_alert, read_all,
    },
    hello_builder::{ClientHelloBuilder, client_hello},
};

#[tokio::test]
async fn an_allowed_name_goes_where_the_agent_says_that_it_leads() {
    let harness = ProxyHarness::new(&policy_allowing(&["good.example"]), "192.0.2.66:443").await;
    let server = harness.listen("good.example", "203.0.113.1", 443).await;
    let mut client = harness.connect().await;
    let hello = client_hello("good.example");
    client.write_all(&hello).await.unwrap();
    let mut server_side = accept_next(&server).await;
    expect_bytes(&mut server_side, &hello).await;
    server_side.write_all(b"answer").await.unwrap();
    expect_bytes(&mut client, b"answer").await;
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server_side).await.unwrap(), b"");
    server_side.write_all(b"late").await.unwrap();
    drop(server_side);
    assert_eq!(read_all(&mut client).await.unwrap(), b"late");
    assert!(harness.connection_counts().contains(r#"protocol="tls",decision="allowed"} 1"#));
    super::harness::wait_until("it is over", || harness.active() == 0).await;
    assert!(harness.events().is_empty());
}

#[tokio::test]
async fn denied_clients_get_an_alert_and_an_event() {
    let cut = [&[22, 3, 1, 0, 100][..], &[0; 100]].concat();
    for (bytes, alerted, reason, name) in [
        (client_hello("bad.example"), Some(49), "name_not_allowed", Some("bad.example")),
        (client_hello("192.0.2.1"), Some(49), "deny_out", None), // without SNI
        (ClientHelloBuilder::for_name("bad!.example").build(), Some(49), "invalid_name", None),
        (
            ClientHelloBuilder::for_name("-bad.example").build(),
            Some(49),
            "name_not_allowed",
            Some("-bad.example"),
        ),
        (cut, Some(80), "not_judgeable", None),
        (b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n".to_vec(), None, "not_judgeable", None),
        (vec![0; 100_000], None, "not_judgeable", None),
    ] {
        let harness =
            ProxyHarness::new(&policy_allowing(&["good.example"]), "192.0.2.66:443").await;
        let mut client = harness.connect().await;
        let _ = client.write_all(&bytes).await;
        match alerted {
            Some(description) => assert_eq!(read_alert(&mut client).await, description, "{reason}"),
            None => assert!(is_reset(&mut client).await, "{reason}"),
        }
        let event = harness.first_event().await;
        assert_eq!((event.reason, event.name.as_deref()), (reason, name));
        assert_eq!(event.destination.unwrap().to_string(), "192.0.2.66");
        assert!(harness.connection_counts().contains(r#"protocol="tls",decision="denied"} 1"#));
        assert!(harness.network.dialed.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_real_client_reads_the_alert_though_it_goes_on_sending() {
    let harness = ProxyHarness::new(&policy_allowing(&["good.example"]), "192.0.2.66:443").await;
    let mut client = harness.connect().await;
    client.write_all(&client_hello("bad.example")).await.unwrap();
    client.write_all(&[0; 100_000]).await.unwrap();
    let roots = RootCertStore::empty();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("bad.example").unwrap();
    let error = connector.connect(name, harness.connect().await).await.unwrap_err();
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    assert_eq!(read_alert(&mut client).await, 49);
    super::harness::wait_until("they are over", || harness.active() == 0).await;
}

#[tokio::test]
async fn odd_names_go_out_under_a_wildcard() {
    let harness = ProxyHarness::new(&policy_allowing(&["*.example"]), "192.0.2.66:443").await;
    for name in ["my_bucket.s3.example", "-a.example", "a-.b.example"] {
        let server = harness.listen(name, "203.0.113.1", 443).await;
        let mut client = harness.connect().await;
        let hello = ClientHelloBuilder::for_name(name).build();
        client.write_all(&hello).await.unwrap();
        expect_bytes(&mut accept_next(&server).await, &hello).await;
    }
}

#[tokio::test]
async fn whoever_says_nothing_is_reset() {
    let harness = ProxyHarness::new(&policy_allowing(&["good.example"]), "192.0.2.66:443").await;
    let mut silent = harness.connect().await;
    assert!(is_reset(&mut silent).await);
    assert_eq!(harness.first_event().await.reason, "proxy_timeout");
    let mut slow = harness.connect().await;
    slow.write_all(&client_hello("good.example")[..100]).await.unwrap();
    assert_eq!(read_alert(&mut slow).await, 80);
    let gone = harness.connect().await;
    drop(gone);
    super::harness::wait_until("they are gone", || harness.active() == 0).await;
    assert_eq!(harness.events().len(), 2);
}

#[tokio::test]
async fn tls_works_end_to_end() {
    let generated = rcgen::generate_simple_self_signed(vec!["good.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(generated.signing_key.serialize_der()));
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![generated.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(generated.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let harness = ProxyHarness::new(&policy_allowing(&["*.example"]), "192.0.2.66:443").await;
    let listener = harness.listen("good.example", "203.0.113.1", 443).await;
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let mut stream = acceptor.accept(accept_next(&listener).await).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let connector = TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("good.example").unwrap();
    let mut stream: tokio_rustls::client::TlsStream<TcpStream> =
        connector.connect(name, harness.connect().await).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert!(sent == received);
}
