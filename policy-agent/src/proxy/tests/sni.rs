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
    hello::{Hello, client_hello},
    stage::{Stage, accept, alert, expect, is_reset, names, read_all},
};

#[tokio::test]
async fn an_allowed_name_goes_where_the_agent_says_that_it_leads() {
    let stage = Stage::new(&names(&["good.example"]), "192.0.2.66:443").await;
    let server = stage.listen("good.example", "203.0.113.1", 443).await;
    let mut client = stage.connect().await;
    let hello = client_hello("good.example");
    client.write_all(&hello).await.unwrap();
    let mut there = accept(&server).await;
    expect(&mut there, &hello).await;
    there.write_all(b"answer").await.unwrap();
    expect(&mut client, b"answer").await;
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut there).await.unwrap(), b"");
    there.write_all(b"late").await.unwrap();
    drop(there);
    assert_eq!(read_all(&mut client).await.unwrap(), b"late");
    assert!(stage.counted().contains(r#"protocol="tls",decision="allowed"} 1"#));
    super::stage::until("it is over", || stage.active() == 0).await;
    assert!(stage.events().is_empty());
}

#[tokio::test]
async fn what_is_not_allowed_is_told() {
    let cut = [&[22, 3, 1, 0, 100][..], &[0; 100]].concat();
    for (bytes, alerted, reason, name) in [
        (client_hello("bad.example"), Some(49), "name_not_allowed", Some("bad.example")),
        (client_hello("192.0.2.1"), Some(49), "deny_out", None), // without SNI
        (Hello::of("bad!.example").bytes(), Some(49), "invalid_name", None),
        (Hello::of("-bad.example").bytes(), Some(49), "name_not_allowed", Some("-bad.example")),
        (cut, Some(80), "not_judgeable", None),
        (b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n".to_vec(), None, "not_judgeable", None),
        (vec![0; 100_000], None, "not_judgeable", None),
    ] {
        let stage = Stage::new(&names(&["good.example"]), "192.0.2.66:443").await;
        let mut client = stage.connect().await;
        let _ = client.write_all(&bytes).await;
        match alerted {
            Some(description) => assert_eq!(alert(&mut client).await, description, "{reason}"),
            None => assert!(is_reset(&mut client).await, "{reason}"),
        }
        let event = stage.event().await;
        assert_eq!((event.reason, event.name.as_deref()), (reason, name));
        assert_eq!(event.destination.unwrap().to_string(), "192.0.2.66");
        assert!(stage.counted().contains(r#"protocol="tls",decision="denied"} 1"#));
        assert!(stage.world.dialled.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_real_client_reads_the_alert_though_it_goes_on_sending() {
    let stage = Stage::new(&names(&["good.example"]), "192.0.2.66:443").await;
    let mut client = stage.connect().await;
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
    let error = connector.connect(name, stage.connect().await).await.unwrap_err();
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    assert_eq!(alert(&mut client).await, 49);
    super::stage::until("they are over", || stage.active() == 0).await;
}

#[tokio::test]
async fn odd_names_go_out_under_a_wildcard() {
    let stage = Stage::new(&names(&["*.example"]), "192.0.2.66:443").await;
    for name in ["my_bucket.s3.example", "-a.example", "a-.b.example"] {
        let server = stage.listen(name, "203.0.113.1", 443).await;
        let mut client = stage.connect().await;
        let hello = Hello::of(name).bytes();
        client.write_all(&hello).await.unwrap();
        expect(&mut accept(&server).await, &hello).await;
    }
}

#[tokio::test]
async fn whoever_says_nothing_is_reset() {
    let stage = Stage::new(&names(&["good.example"]), "192.0.2.66:443").await;
    let mut silent = stage.connect().await;
    assert!(is_reset(&mut silent).await);
    assert_eq!(stage.event().await.reason, "proxy_timeout");
    let mut slow = stage.connect().await;
    slow.write_all(&client_hello("good.example")[..100]).await.unwrap();
    assert_eq!(alert(&mut slow).await, 80);
    let gone = stage.connect().await;
    drop(gone);
    super::stage::until("they are gone", || stage.active() == 0).await;
    assert_eq!(stage.events().len(), 2);
}

#[tokio::test]
async fn tls_works_end_to_end() {
    let made = rcgen::generate_simple_self_signed(vec!["good.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let stage = Stage::new(&names(&["*.example"]), "192.0.2.66:443").await;
    let listener = stage.listen("good.example", "203.0.113.1", 443).await;
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let mut stream = acceptor.accept(accept(&listener).await).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let connector = TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("good.example").unwrap();
    let mut stream: tokio_rustls::client::TlsStream<TcpStream> =
        connector.connect(name, stage.connect().await).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert!(sent == got);
}
