//! Limits of a sandbox, and errors that the proxy survives.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use policy_common::reason::Reason;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use super::{
    harness::{
        ProxyHarness, TEST_TIMEOUT, accept_next, expect_bytes, is_reset, policy_allowing,
        read_alert, test_timeouts, wait_until,
    },
    hello_builder::client_hello,
};
use crate::{
    policy::Floor,
    proxy::{
        ProxyTimeouts,
        sandbox_proxy::{SandboxListener, SandboxProxy},
    },
};

/// A proxy for HTTPS that allows one name and this many connections, and waits long for a client's
/// first bytes.
async fn harness_with_patience(allowed: &str, limit: u32) -> ProxyHarness {
    let timeouts = ProxyTimeouts { name_detection: TEST_TIMEOUT, ..test_timeouts() };
    ProxyHarness::with_settings(
        &policy_allowing(&[allowed]),
        "192.0.2.66:443",
        Floor::default(),
        timeouts,
        limit,
    )
    .await
}

#[tokio::test]
async fn a_sandbox_has_only_so_many_connections() {
    let harness = harness_with_patience("a.example", 3).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(harness.connect().await);
    }
    wait_until("they are taken", || harness.active() == 3).await;
    let mut refused = harness.connect().await;
    assert_eq!(read_alert(&mut refused).await, 80);
    assert_eq!(harness.first_event().await.reason, "too_many_connections");
    drop(kept.pop());
    wait_until("one is gone", || harness.active() == 2).await;
    let again = harness.connect().await;
    wait_until("there is room", || harness.active() == 3).await;
    drop(again);
}

#[tokio::test]
async fn events_come_at_a_limited_rate() {
    let active_policy = policy_allowing(&["a.example"]);
    let harness = ProxyHarness::with_settings(
        &active_policy,
        "192.0.2.66:80",
        Floor::default(),
        test_timeouts(),
        0,
    )
    .await;
    for _ in 0..3 {
        assert!(is_reset(&mut harness.connect().await).await);
    }
    assert!(harness.connection_counts().contains(r#"decision="denied"} 3"#));
    assert_eq!(harness.events().len(), 3);
    // Faster than any machine could accept connections.
    let sandbox_proxy = harness.proxy.sandbox_proxy(harness.slot).expect("listeners");
    let addresses = ("192.0.2.1:1024", "192.0.2.66:80");
    let addresses =
        (addresses.0.parse().expect("an address"), addresses.1.parse().expect("an address"));
    for _ in 0..5000 {
        sandbox_proxy.report_event(addresses, None, Reason::TooManyConnections.into());
    }
    assert!(
        harness.event_buffer.lost() > 0 && harness.events().len() >= 400,
        "{}",
        harness.event_buffer.lost()
    );
}

#[tokio::test]
async fn a_decision_permit_lasts_until_the_decision() {
    let harness = harness_with_patience("good.example", 64).await;
    let free_permits = || {
        harness.proxy.sandbox_proxy(harness.slot).expect("listeners").decision_limiter.available()
    };
    let permits = free_permits();
    let server = harness.listen("good.example", "203.0.113.1", 443).await;
    let mut silent = Vec::new();
    for _ in 0..permits + 3 {
        silent.push(harness.connect().await);
    }
    // The silent clients hold all permits and do not block the others.
    wait_until("they are taken", || harness.active() == permits + 3 && free_permits() == 0).await;
    let hello = client_hello("good.example");
    let mut client = harness.connect().await;
    client.write_all(&hello).await.unwrap();
    expect_bytes(&mut accept_next(&server).await, &hello).await;
    drop(silent);
    wait_until("they are gone", || harness.active() == 1 && free_permits() == permits).await;
    let mut refused = harness.connect().await;
    refused.write_all(&client_hello("bad.example")).await.unwrap();
    assert_eq!(read_alert(&mut refused).await, 49);
    wait_until("the turn is over", || free_permits() == permits).await;
}

/// Fails often, like accept(2) without free file descriptors.
struct FailingListener(TcpListener, AtomicUsize);

impl SandboxListener for FailingListener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let errors = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ECONNABORTED, libc::EPERM];
        match self.1.fetch_add(1, Ordering::Relaxed) {
            attempt if attempt < 20 => {
                Err(io::Error::from_raw_os_error(errors[attempt % errors.len()]))
            }
            _ => self.0.accept().await,
        }
    }
}

#[tokio::test]
async fn errors_of_accept_do_not_end_it() {
    let active_policy = policy_allowing(&["a.example"]);
    let harness = ProxyHarness::new(&active_policy, "192.0.2.66:443").await;
    let id = "web".parse().unwrap();
    let sandbox_proxy = Arc::new(SandboxProxy::new(
        Arc::clone(&harness.proxy.context),
        id,
        Arc::clone(&harness.proxy_counters),
        active_policy,
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    sandbox_proxy.spawn_accept_loop(FailingListener(listener, AtomicUsize::new(0)));
    let _client = TcpStream::connect(address).await.unwrap();
    wait_until("it is taken", || sandbox_proxy.active_connections() == 1).await;
    sandbox_proxy.close();
}
