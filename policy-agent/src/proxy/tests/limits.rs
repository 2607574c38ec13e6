//! How much a sandbox may have, and what the proxy survives.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::net::{TcpListener, TcpStream};

use super::stage::{Stage, is_reset, names, patience, until};
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
    assert!(is_reset(&mut refused).await);
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
    let stage = Stage::with(&rules, "192.0.2.66:443", Floor::default(), patience(), 0).await;
    for _ in 0..600 {
        assert!(is_reset(&mut stage.connect().await).await);
    }
    assert!((400..600).contains(&stage.events().len()), "{}", stage.events().len());
    assert!(stage.counted().contains(r#"decision="denied"} 600"#));
    assert_eq!(stage.hub.lost() + stage.events().len() as u64, 600);
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
    let door = std::sync::Arc::new(Door::new(stage.proxy.means.clone(), id, rules));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    door.serve(Failing(listener, AtomicUsize::new(0)));
    let _client = TcpStream::connect(address).await.unwrap();
    until("it is taken", || door.active() == 1).await;
    door.close();
}
