//! Where allowed names may lead.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use super::{
    hello::client_hello,
    stage::{Stage, accept, expect, is_reset, names, patience},
};
use crate::policy::Floor;

/// Strings of a list.
fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn bad_addresses_are_never_dialled() {
    for (addresses, own, reason, rule) in [
        (&["10.0.0.1"][..], "192.0.2.9", "platform_deny", Some("10.0.0.0/8")),
        (&["169.254.169.254", "::1"], "192.0.2.9", "platform_deny", Some("::1/128")),
        (&["::ffff:127.0.0.1"], "192.0.2.9", "platform_deny", Some("127.0.0.0/8")),
        (&["64:ff9b::a00:1"], "192.0.2.9", "platform_deny", Some("10.0.0.0/8")),
        (&["203.0.113.5"], "203.0.113.5", "host_address", None),
        (&["::ffff:203.0.113.5"], "203.0.113.5", "host_address", None),
        (&["10.0.0.1", "203.0.113.5"], "203.0.113.5", "platform_deny", Some("10.0.0.0/8")),
        (&[], "192.0.2.9", "name_unresolved", None),
        (&["203.0.113.7"], "192.0.2.9", "unreachable", None),
    ] {
        let stage = Stage::new(&names(&["good.example"]), "192.0.2.66:443").await;
        stage.name("good.example", addresses);
        stage.world.own.lock().unwrap().insert(own.parse().unwrap());
        let mut client = stage.connect().await;
        client.write_all(&client_hello("good.example")).await.unwrap();
        assert!(is_reset(&mut client).await, "{addresses:?}");
        let event = stage.event().await;
        assert_eq!((event.reason, event.name.as_deref()), (reason, Some("good.example")));
        assert_eq!(event.rule.as_ref().map(|rule| rule.entry.as_str()), rule);
        let dialled = stage.world.dialled.lock().unwrap().len();
        assert_eq!(dialled, usize::from(reason == "unreachable"), "{addresses:?}");
    }
}

#[tokio::test]
async fn one_bad_address_does_not_spoil_the_good_ones() {
    let stage = Stage::new(&names(&["good.example"]), "192.0.2.66:443").await;
    let server = stage.listen("good.example", "203.0.113.1", 443).await;
    stage.name("good.example", &["fd00::1", "10.0.0.1", "::ffff:203.0.113.1"]);
    let mut client = stage.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    expect(&mut accept(&server).await, &client_hello("good.example")[..5]).await;
    assert_eq!(*stage.world.dialled.lock().unwrap(), ["203.0.113.1:443".parse().unwrap()]);
}

#[tokio::test]
async fn the_operator_can_open_the_host_itself() {
    let floor = Floor::new(&strings(&["10.0.0.1"]), None).unwrap();
    let rules = names(&["good.example"]);
    let stage = Stage::with(&rules, "192.0.2.66:443", floor, patience(), 64).await;
    let server = stage.listen("good.example", "10.0.0.1", 443).await;
    stage.world.own.lock().unwrap().insert("10.0.0.1".parse().unwrap());
    let mut client = stage.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    accept(&server).await;
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_fails_or_is_slow() {
    let stage = Stage::new(&names(&["good.example"]), "192.0.2.66:443").await;
    let server = stage.listen("good.example", "203.0.113.1", 443).await;
    // Refuses, never answers, answers.
    stage.name("good.example", &["2001:4860::1", "2001:4860::2", "203.0.113.1"]);
    stage.world.silent.lock().unwrap().insert("2001:4860::2".parse().unwrap());
    let mut client = stage.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    accept(&server).await;
    let dialled = stage.world.dialled.lock().unwrap().clone();
    assert_eq!(dialled[..2], ["[2001:4860::1]:443", "203.0.113.1:443"].map(|a| a.parse().unwrap()));

    stage.name("good.example", &["2001:4860::2", "203.0.113.1"]);
    let mut client = stage.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    accept(&server).await;

    stage.name("good.example", &["2001:4860::2"]);
    let start = Instant::now();
    let mut client = stage.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    assert!(is_reset(&mut client).await);
    assert!(start.elapsed() >= Duration::from_millis(500));
    assert_eq!(stage.event().await.reason, "unreachable");
}

#[tokio::test]
async fn a_client_that_goes_ends_the_dialling() {
    let stage = Stage::new(&names(&["good.example"]), "192.0.2.66:443").await;
    stage.name("good.example", &["203.0.113.1"]);
    stage.world.silent.lock().unwrap().insert("203.0.113.1".parse().unwrap());
    let mut client = stage.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    super::stage::until("it dials", || !stage.world.dialled.lock().unwrap().is_empty()).await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    super::stage::until("it is over", || stage.active() == 0).await;
    assert!(stage.events().is_empty());
}
