//! What happens to connections when the rules change, or the door is closed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    hello::client_hello,
    stage::{Stage, accept, alert, expect, is_reset, names, read_all, rules, until},
};
use crate::{agent::Egress as _, policy::Floor};

/// A connection with both its ends.
async fn joined(stage: &Stage, name: &str) -> (TcpStream, TcpStream) {
    let server = stage.listen(name, "203.0.113.1", 443).await;
    let mut client = stage.connect().await;
    client.write_all(&client_hello(name)).await.unwrap();
    let mut there = accept(&server).await;
    expect(&mut there, &client_hello(name)[..5]).await;
    (client, there)
}

#[tokio::test]
async fn a_name_no_longer_allowed_is_cut_and_others_stay() {
    let stage = Stage::new(&names(&["a.example", "b.example"]), "192.0.2.66:443").await;
    let (mut a, mut a_there) = joined(&stage, "a.example").await;
    let (mut b, mut b_there) = joined(&stage, "b.example").await;
    stage.proxy.follow(stage.slot, &names(&["*.example"]));
    assert_eq!(stage.active(), 2);
    stage.proxy.follow(stage.slot, &names(&["b.example"]));
    assert_eq!(stage.active(), 1, "at once");
    assert_eq!(stage.events(), [("name_not_allowed", Some("a.example".to_owned()))]);
    assert!(is_reset(&mut a).await);
    let mut discarded = Vec::new();
    let there = tokio::io::AsyncReadExt::read_to_end(&mut a_there, &mut discarded).await;
    assert_eq!(there.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    b_there.write_all(b"on").await.unwrap();
    expect(&mut b, b"on").await;
    let mut refused = stage.connect().await;
    refused.write_all(&client_hello("a.example")).await.unwrap();
    assert_eq!(alert(&mut refused).await, 49);
}

#[tokio::test]
async fn connections_that_are_judged_or_dialled_see_the_new_rules() {
    let stage = Stage::new(&names(&["a.example"]), "192.0.2.66:443").await;
    stage.name("a.example", &["203.0.113.1"]);
    stage.world.silent.lock().unwrap().insert("203.0.113.1".parse().unwrap());
    let mut judged = stage.connect().await;
    judged.write_all(&client_hello("a.example")[..20]).await.unwrap();
    let mut dialled = stage.connect().await;
    dialled.write_all(&client_hello("a.example")).await.unwrap();
    until("it dials", || !stage.world.dialled.lock().unwrap().is_empty()).await;
    stage.proxy.follow(stage.slot, &names(&["b.example"]));
    assert!(is_reset(&mut dialled).await);
    judged.write_all(&client_hello("a.example")[20..]).await.unwrap();
    assert_eq!(alert(&mut judged).await, 49);
    assert_eq!(stage.world.dialled.lock().unwrap().len(), 1);
    assert_eq!(stage.event().await.reason, "name_not_allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_slips_through_while_rules_change() {
    let stage = Arc::new(Stage::new(&names(&["a.example"]), "192.0.2.66:443").await);
    let server = stage.listen("a.example", "203.0.113.1", 443).await;
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    tokio::spawn(async move {
        while let Ok((mut there, _)) = server.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut there, &mut tokio::io::sink()).await;
                counted.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let (allowing, denying) = (names(&["a.example"]), names(&["b.example"]));
    for _ in 0..30 {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let stage = Arc::clone(&stage);
            clients.spawn(async move {
                let mut client = stage.connect().await;
                let _ = client.write_all(&client_hello("a.example")).await;
                is_over(&mut client).await
            });
        }
        tokio::task::yield_now().await;
        let (proxy, slot, rules) = (Arc::clone(&stage.proxy), stage.slot, Arc::clone(&denying));
        tokio::task::spawn_blocking(move || proxy.follow(slot, &rules)).await.unwrap();
        assert!(clients.join_all().await.into_iter().all(|over| over));
        until("none is left", || open.load(Ordering::SeqCst) == 0 && stage.active() == 0).await;
        stage.proxy.follow(stage.slot, &allowing);
    }
}

/// Whether a connection ends in a reset, or with an alert.
async fn is_over(client: &mut TcpStream) -> bool {
    match read_all(client).await {
        Ok(said) => said == [21, 3, 3, 0, 2, 2, 49],
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[tokio::test]
async fn another_tunnel_cuts_connections() {
    let stage = Stage::new(&names(&["a.example"]), "192.0.2.66:443").await;
    let (mut client, _there) = joined(&stage, "a.example").await;
    let network = r#"{"allowOut":["a.example"],"denyOut":["0.0.0.0/0"],
        "egressProxy":{"address":"203.0.113.9:1080"}}"#;
    stage.proxy.follow(stage.slot, &rules(network, &Floor::default()));
    assert!(is_reset(&mut client).await);
}

#[tokio::test]
async fn a_closed_door_has_no_connections() {
    let stage = Stage::new(&names(&["a.example"]), "192.0.2.66:443").await;
    let (mut client, _there) = joined(&stage, "a.example").await;
    assert!(stage.proxy.is_open(stage.slot));
    stage.proxy.close(stage.slot);
    assert!(!stage.proxy.is_open(stage.slot) && stage.active() == 0);
    assert!(is_reset(&mut client).await);
    until("nobody listens", || std::net::TcpStream::connect(stage.door).is_err()).await;
    assert!(stage.counted().contains("allowed"), "what was counted stays the sandbox's");
    assert_eq!(stage.proxy.counts().active.get(), 0);
}
