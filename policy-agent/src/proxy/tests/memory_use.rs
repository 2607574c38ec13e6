//! The memory use of connections.

use tokio::io::AsyncWriteExt as _;

use super::{
    harness::{ProxyHarness, accept_next, policy_allowing, test_timeouts, wait_until},
    hello_builder::client_hello,
};
use crate::{policy::Floor, proxy::serve_connection};

/// Maximum size in bytes of the task of an established connection.
const MAX_TASK_SIZE: usize = 1280;

#[test]
fn the_task_of_an_established_connection_is_small() {
    let size = serve_connection::relay_task_size();
    println!("{size} bytes");
    assert!(size <= MAX_TASK_SIZE, "{size}");
}

/// Resident memory of this process in KiB.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The growth includes the peers' sockets in this process, which take about as much as the proxy's
/// own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures the whole process: run it alone; IDLE_CONNECTIONS says how many"]
async fn idle_connections_take_little_memory() {
    let count: u32 =
        std::env::var("IDLE_CONNECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let http = std::env::var("IDLE_HTTP").is_ok();
    let (port, name) = (if http { 80 } else { 443 }, "good.example");
    let destination = format!("192.0.2.66:{port}");
    let harness = ProxyHarness::with_settings(
        &policy_allowing(&[name]),
        &destination,
        Floor::default(),
        test_timeouts(),
        count,
    )
    .await;
    let listener = harness.listen(name, "203.0.113.1", port).await;
    let hello = client_hello(name);
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    let mut before = 0;
    for index in 0..count {
        let mut client = harness.connect().await;
        let bytes: &[u8] =
            if http { b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n" } else { &hello };
        client.write_all(bytes).await.unwrap();
        let mut server_side = accept_next(&listener).await;
        if http {
            let mut head = [0; 1024];
            let _ = tokio::io::AsyncReadExt::read(&mut server_side, &mut head).await.unwrap();
            server_side.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            super::harness::expect_bytes(&mut client, b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
        clients.push(client);
        servers.push(server_side);
        if index == count / 10 {
            before = resident_kib();
        }
    }
    wait_until("all are there", || harness.active() == count as usize).await;
    let each = (resident_kib().saturating_sub(before)) * 1024 / (count - count / 10) as usize;
    println!("{each} bytes for each of {count} idle connections, peers included");
    assert!(each < if http { 64 * 1024 } else { 16 * 1024 }, "{each}");
}
