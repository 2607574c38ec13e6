//! How much a sandbox may have, and what the proxy survives.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use policy_common::reason::Reason;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use super::{
    hello::client_hello,
    stage::{Stage, accept, alert, expect, is_reset, names, patience, until},
};
use crate::{
    policy::Floor,
    proxy::{door::Door, door::Listener},
};

#[tokio::test]
async fn a_sandbox_has_only_so_many_connections() {
    let rules = names(&["a.example"]);
    let patience = crate::proxy::Patience { ask: super::stage::SOON, ..patience() };
    let stage = Stage::with(&rules, "192.0.2.66:443", Floor::default(), patience, 3).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(stage.connect().await);
    }
    until("they are taken", || stage.active() == 3).await;
    let mut refused = stage.connect().await;
    assert_eq!(alert(&mut refused).await, 80);
    assert_eq!(stage.event().await.reason, "too_many_connections");
    drop(kept.pop());
    until("one is gone", || stage.active() == 2).await;
    let again = stage.connect().await;
    until("there is room", || stage.active() == 3).await;
    drop(again);
}

#[tokio::test]
async fn events_come_at_a_limited_rate() {
    let rules = names(&["a.example"]);
    let stage = Stage::with(&rules, "192.0.2.66:80", Floor::default(), patience(), 0).await;
    for _ in 0..3 {
        assert!(is_reset(&mut stage.connect().await).await);
    }
    assert!(stage.counted().contains(r#"decision="denied"} 3"#));
    assert_eq!(stage.events().len(), 3);
    // Faster than any machine could take connections.
    let door = stage.proxy.door(stage.slot).expect("a door");
    let way = ("192.0.2.1:1024", "192.0.2.66:80");
    let way = (way.0.parse().expect("an address"), way.1.parse().expect("an address"));
    for _ in 0..5000 {
        door.report(way, None, Reason::TooManyConnections.into());
    }
    assert!(stage.hub.lost() > 0 && stage.events().len() >= 400, "{}", stage.hub.lost());
}

#[tokio::test]
async fn a_turn_lasts_until_the_verdict() {
    let rules = names(&["good.example"]);
    let patience = crate::proxy::Patience { ask: super::stage::SOON, ..patience() };
    let stage = Stage::with(&rules, "192.0.2.66:443", Floor::default(), patience, 64).await;
    let free = || stage.proxy.door(stage.slot).expect("a door").turns.free();
    let turns = free();
    let server = stage.listen("good.example", "203.0.113.1", 443).await;
    let mut silent = Vec::new();
    for _ in 0..turns + 3 {
        silent.push(stage.connect().await);
    }
    // Those that say nothing have all turns, and do not hold up the others.
    until("they are taken", || stage.active() == turns + 3 && free() == 0).await;
    let hello = client_hello("good.example");
    let mut client = stage.connect().await;
    client.write_all(&hello).await.unwrap();
    expect(&mut accept(&server).await, &hello).await;
    drop(silent);
    until("they are gone", || stage.active() == 1 && free() == turns).await;
    let mut refused = stage.connect().await;
    refused.write_all(&client_hello("bad.example")).await.unwrap();
    assert_eq!(alert(&mut refused).await, 49);
    until("the turn is over", || free() == turns).await;
}

/// Fails often, as accept(2) does when there is no descriptor left.
struct Failing(TcpListener, AtomicUsize);

impl Listener for Failing {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let errors = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ECONNABORTED, libc::EPERM];
        match self.1.fetch_add(1, Ordering::Relaxed) {
            turn if turn < 20 => Err(io::Error::from_raw_os_error(errors[turn % errors.len()])),
            _ => self.0.accept().await,
        }
    }
}

#[tokio::test]
async fn errors_of_accept_do_not_end_it() {
    let rules = names(&["a.example"]);
    let stage = Stage::new(&rules, "192.0.2.66:443").await;
    let id = "web".parse().unwrap();
    let door =
        std::sync::Arc::new(Door::new(stage.proxy.means.clone(), id, stage.tally.clone(), rules));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    door.serve(Failing(listener, AtomicUsize::new(0)));
    let _client = TcpStream::connect(address).await.unwrap();
    until("it is taken", || door.active() == 1).await;
    door.close();
}
