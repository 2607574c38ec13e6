//! What happens to connections when the policy changes or the proxy of a sandbox is closed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    harness::{
        ProxyHarness, accept_next, expect_bytes, is_reset, policy_allowing, policy_from_json,
        read_alert, read_all, wait_until,
    },
    hello_builder::client_hello,
};
use crate::{
    agent::{ActivePolicy, ProxyControl as _},
    policy::{Floor, PolicyMode},
};

/// A connection through the proxy: the client's and the server's end.
async fn connected_through(harness: &ProxyHarness, name: &str) -> (TcpStream, TcpStream) {
    let server = harness.listen(name, "203.0.113.1", 443).await;
    let mut client = harness.connect().await;
    client.write_all(&client_hello(name)).await.unwrap();
    let mut server_side = accept_next(&server).await;
    expect_bytes(&mut server_side, &client_hello(name)[..5]).await;
    (client, server_side)
}

#[tokio::test]
async fn a_name_no_longer_allowed_is_reset_and_others_stay() {
    let harness =
        ProxyHarness::new(&policy_allowing(&["a.example", "b.example"]), "192.0.2.66:443").await;
    let (mut a, mut a_server) = connected_through(&harness, "a.example").await;
    let (mut b, mut b_server) = connected_through(&harness, "b.example").await;
    harness.proxy.update_policy(harness.slot, &policy_allowing(&["*.example"]));
    assert_eq!(harness.active(), 2);
    harness.proxy.update_policy(harness.slot, &policy_allowing(&["b.example"]));
    assert_eq!(harness.active(), 1, "at once");
    assert_eq!(harness.events(), [("name_not_allowed", Some("a.example".to_owned()))]);
    assert!(is_reset(&mut a).await);
    let mut discarded = Vec::new();
    let server_side = tokio::io::AsyncReadExt::read_to_end(&mut a_server, &mut discarded).await;
    assert_eq!(server_side.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    b_server.write_all(b"on").await.unwrap();
    expect_bytes(&mut b, b"on").await;
    let mut refused = harness.connect().await;
    refused.write_all(&client_hello("a.example")).await.unwrap();
    assert_eq!(read_alert(&mut refused).await, 49);
}

#[tokio::test]
async fn connections_that_are_judged_or_dialled_see_the_new_rules() {
    let harness = ProxyHarness::new(&policy_allowing(&["a.example"]), "192.0.2.66:443").await;
    harness.set_name("a.example", &["203.0.113.1"]);
    harness.network.unresponsive.lock().unwrap().insert("203.0.113.1".parse().unwrap());
    let mut undecided = harness.connect().await;
    undecided.write_all(&client_hello("a.example")[..20]).await.unwrap();
    let mut dialing = harness.connect().await;
    dialing.write_all(&client_hello("a.example")).await.unwrap();
    wait_until("it dials", || !harness.network.dialed.lock().unwrap().is_empty()).await;
    harness.proxy.update_policy(harness.slot, &policy_allowing(&["b.example"]));
    assert!(is_reset(&mut dialing).await);
    undecided.write_all(&client_hello("a.example")[20..]).await.unwrap();
    assert_eq!(read_alert(&mut undecided).await, 49);
    assert_eq!(harness.network.dialed.lock().unwrap().len(), 1);
    assert_eq!(harness.first_event().await.reason, "name_not_allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_slips_through_while_rules_change() {
    let harness =
        Arc::new(ProxyHarness::new(&policy_allowing(&["a.example"]), "192.0.2.66:443").await);
    let server = harness.listen("a.example", "203.0.113.1", 443).await;
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    tokio::spawn(async move {
        while let Ok((mut server_side, _)) = server.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut server_side, &mut tokio::io::sink()).await;
                counted.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let (allowing, denying) = (policy_allowing(&["a.example"]), policy_allowing(&["b.example"]));
    for _ in 0..30 {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let harness = Arc::clone(&harness);
            clients.spawn(async move {
                let mut client = harness.connect().await;
                let _ = client.write_all(&client_hello("a.example")).await;
                is_over(&mut client).await
            });
        }
        tokio::task::yield_now().await;
        let (proxy, slot, policy) =
            (Arc::clone(&harness.proxy), harness.slot, Arc::clone(&denying));
        tokio::task::spawn_blocking(move || proxy.update_policy(slot, &policy)).await.unwrap();
        assert!(clients.join_all().await.into_iter().all(|over| over));
        wait_until("none is left", || open.load(Ordering::SeqCst) == 0 && harness.active() == 0)
            .await;
        harness.proxy.update_policy(harness.slot, &allowing);
    }
}

/// Whether a connection ends in a reset or with an alert.
async fn is_over(client: &mut TcpStream) -> bool {
    match read_all(client).await {
        Ok(bytes) => bytes == [21, 3, 3, 0, 2, 2, 49],
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[tokio::test]
async fn another_egress_proxy_resets_connections() {
    let harness = ProxyHarness::new(&policy_allowing(&["a.example"]), "192.0.2.66:443").await;
    let (mut client, _server_side) = connected_through(&harness, "a.example").await;
    let network = r#"{"allowOut":["a.example"],"denyOut":["0.0.0.0/0"],
        "egressProxy":{"address":"203.0.113.9:1080"}}"#;
    harness.proxy.update_policy(harness.slot, &policy_from_json(network, &Floor::default()));
    assert!(is_reset(&mut client).await);
}

#[tokio::test]
async fn a_closed_sandbox_has_no_connections() {
    let harness = ProxyHarness::new(&policy_allowing(&["a.example"]), "192.0.2.66:443").await;
    let (mut client, _server_side) = connected_through(&harness, "a.example").await;
    assert!(harness.proxy.has_listeners(harness.slot));
    harness.proxy.close_listeners(harness.slot);
    assert!(!harness.proxy.has_listeners(harness.slot) && harness.active() == 0);
    assert!(is_reset(&mut client).await);
    wait_until("nobody listens", || std::net::TcpStream::connect(harness.proxy_address).is_err())
        .await;
    assert!(
        harness.connection_counts().contains("allowed"),
        "what was counted stays the sandbox's"
    );
    assert_eq!(harness.proxy.metrics().active_connections.get(), 0);
}

#[tokio::test]
async fn a_connection_to_an_address_that_a_new_floor_denies_is_reset() {
    let harness =
        ProxyHarness::new(&policy_allowing(&["a.example", "b.example"]), "192.0.2.66:443").await;
    let server = harness.listen("b.example", "198.51.100.1", 443).await;
    let (mut denied, _server_side) = connected_through(&harness, "a.example").await;
    let mut kept = harness.connect().await;
    kept.write_all(&client_hello("b.example")).await.unwrap();
    let mut kept_server = accept_next(&server).await;
    expect_bytes(&mut kept_server, &client_hello("b.example")[..5]).await;
    let floor = Floor::default().with_deny_add(&["203.0.113.0/24".to_owned()]).unwrap();
    let network = r#"{"allowOut":["a.example","b.example"],"denyOut":["0.0.0.0/0"]}"#;
    harness.proxy.update_policy(harness.slot, &policy_from_json(network, &floor));
    assert!(is_reset(&mut denied).await);
    assert_eq!(harness.active(), 1);
    kept_server.write_all(b"on").await.unwrap();
    expect_bytes(&mut kept, b"on").await;
}

#[tokio::test]
async fn a_connection_that_is_dialed_while_the_floor_changes_is_checked_again() {
    let harness = ProxyHarness::new(&policy_allowing(&["a.example"]), "192.0.2.66:443").await;
    let floor = Floor::default().with_deny_add(&["203.0.113.0/24".to_owned()]).unwrap();
    let network = r#"{"allowOut":["a.example"],"denyOut":["0.0.0.0/0"]}"#;
    // The floor that dialing checks is still the old one.
    harness.proxy.update_policy(harness.slot, &policy_from_json(network, &floor));
    let _server = harness.listen("a.example", "203.0.113.1", 443).await;
    let mut client = harness.connect().await;
    client.write_all(&client_hello("a.example")).await.unwrap();
    assert!(is_reset(&mut client).await);
}

/// The same policy, observed.
fn observed(policy: &ActivePolicy) -> Arc<ActivePolicy> {
    Arc::new(ActivePolicy {
        network: policy.network.clone(),
        policy: policy.policy.clone().with_mode(PolicyMode::Observe),
        floor: Arc::clone(&policy.floor),
        names: policy.names.clone(),
        digest: policy.digest,
    })
}

#[tokio::test]
async fn an_observed_name_passes_is_reported_and_is_reset_when_the_policy_is_enforced() {
    let enforced = policy_allowing(&["a.example"]);
    let harness = ProxyHarness::new(&observed(&enforced), "192.0.2.66:443").await;
    let (mut a, mut a_server) = connected_through(&harness, "a.example").await;
    let (mut other, _other_server) = connected_through(&harness, "b.example").await;
    let event = harness.first_event().await;
    assert_eq!((event.verdict, event.reason), ("would_deny", "name_not_allowed"));
    assert_eq!(harness.connection_counts(), "protocol=\"tls\",decision=\"allowed\"} 2\n");
    harness.proxy.update_policy(harness.slot, &enforced);
    assert_eq!(harness.active(), 1);
    assert!(is_reset(&mut other).await);
    a_server.write_all(b"on").await.unwrap();
    expect_bytes(&mut a, b"on").await;
}

#[tokio::test]
async fn the_floor_holds_for_an_observed_name() {
    let policy = observed(&policy_allowing(&["a.example"]));
    let harness = ProxyHarness::new(&policy, "192.0.2.66:443").await;
    harness.set_name("inside.example", &["10.0.0.1"]);
    let mut client = harness.connect().await;
    client.write_all(&client_hello("inside.example")).await.unwrap();
    assert_eq!(read_alert(&mut client).await, 49);
    let event = harness.first_event().await;
    assert_eq!((event.verdict, event.reason), ("denied", "platform_deny"));
}
