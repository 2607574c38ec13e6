//! The addresses that allowed names may resolve to.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use super::{
    harness::{
        ProxyHarness, accept_next, expect_bytes, policy_allowing, read_alert, test_timeouts,
    },
    hello_builder::client_hello,
};
use crate::policy::Floor;

/// Converts a list to owned strings.
fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn bad_addresses_are_never_dialled() {
    // The gateway listens at the host's address, but at another port.
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
        let harness =
            ProxyHarness::new(&policy_allowing(&["good.example"]), "192.0.2.66:443").await;
        harness.set_name("good.example", addresses);
        harness.network.host_addresses.lock().unwrap().insert(own.parse().unwrap());
        let mut client = harness.connect().await;
        client.write_all(&client_hello("good.example")).await.unwrap();
        let denied = !["name_unresolved", "unreachable"].contains(&reason);
        assert_eq!(read_alert(&mut client).await, if denied { 49 } else { 80 }, "{addresses:?}");
        let event = harness.first_event().await;
        assert_eq!((event.reason, event.name.as_deref()), (reason, Some("good.example")));
        assert_eq!(event.rule.as_ref().map(|rule| rule.entry.as_str()), rule);
        let dialed = harness.network.dialed.lock().unwrap().len();
        assert_eq!(dialed, usize::from(reason == "unreachable"), "{addresses:?}");
    }
}

#[tokio::test]
async fn one_bad_address_does_not_spoil_the_good_ones() {
    let harness = ProxyHarness::new(&policy_allowing(&["good.example"]), "192.0.2.66:443").await;
    let server = harness.listen("good.example", "203.0.113.1", 443).await;
    harness.set_name("good.example", &["fd00::1", "10.0.0.1", "::ffff:203.0.113.1"]);
    let mut client = harness.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    expect_bytes(&mut accept_next(&server).await, &client_hello("good.example")[..5]).await;
    assert_eq!(*harness.network.dialed.lock().unwrap(), ["203.0.113.1:443".parse().unwrap()]);
}

#[tokio::test]
async fn the_operator_can_open_the_host_itself() {
    let floor = Floor::new(&strings(&["10.0.0.1"]), None).unwrap();
    let network = r#"{"allowOut":["good.example"],"denyOut":["0.0.0.0/0"]}"#;
    let active_policy = super::harness::policy_from_json(network, &floor);
    let harness =
        ProxyHarness::with_settings(&active_policy, "192.0.2.66:443", floor, test_timeouts(), 64)
            .await;
    let server = harness.listen("good.example", "10.0.0.1", 443).await;
    harness.network.host_addresses.lock().unwrap().insert("10.0.0.1".parse().unwrap());
    let mut client = harness.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    accept_next(&server).await;
}

#[tokio::test]
async fn the_hosts_address_where_the_sandbox_is_is_not_dialled_from_elsewhere() {
    let own: Vec<ipnet::IpNet> =
        ["203.0.113.1/32", "192.0.2.66/32"].map(|net| net.parse().unwrap()).into();
    let network = r#"{"allowOut":["good.example","bad.example"],"denyOut":["0.0.0.0/0"]}"#;
    let active_policy =
        super::harness::policy_from_json(network, &Floor::default().with_host_addresses(&own));
    // The sandbox may connect to an address of the host, because the name decides.
    let harness = ProxyHarness::new(&active_policy, "192.0.2.66:443").await;
    harness.listen("bad.example", "203.0.113.1", 443).await;
    let mut client = harness.connect().await;
    client.write_all(&client_hello("bad.example")).await.unwrap();
    assert_eq!(read_alert(&mut client).await, 49);
    assert_eq!(harness.first_event().await.reason, "host_address");
    let server = harness.listen("good.example", "203.0.113.2", 443).await;
    harness.set_name("good.example", &["203.0.113.1", "203.0.113.2"]);
    let mut client = harness.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    accept_next(&server).await;
    assert_eq!(*harness.network.dialed.lock().unwrap(), ["203.0.113.2:443".parse().unwrap()]);
    // Without a name, the destination address decides.
    let mut client = harness.connect().await;
    client.write_all(&client_hello("192.0.2.66")).await.unwrap();
    assert_eq!(read_alert(&mut client).await, 49);
    let last = |(reason, _): &(&'static str, _)| *reason == "platform_deny";
    super::harness::wait_until("a denial", || harness.events().iter().any(last)).await;
}

#[tokio::test]
async fn a_name_may_lead_to_the_agents_own_gateway() {
    let harness = ProxyHarness::new(&policy_allowing(&["*.example"]), "192.0.2.66:80").await;
    let gateway = harness.listen("80-web.sandbox.example", "203.0.113.5", 80).await;
    harness.set_name("other.example", &["203.0.113.6"]);
    let own = ["203.0.113.5", "203.0.113.6"].map(|own| own.parse::<std::net::IpAddr>().unwrap());
    harness.network.host_addresses.lock().unwrap().extend(own);
    for (name, reached) in [("other.example", false), ("80-web.sandbox.example", true)] {
        let mut client = harness.connect().await;
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        match reached {
            true => expect_bytes(&mut accept_next(&gateway).await, request.as_bytes()).await,
            false => assert_eq!(harness.first_event().await.reason, "host_address"),
        }
    }
}

#[tokio::test]
async fn the_gateway_is_known_by_address_and_port() {
    let harness = ProxyHarness::new(&policy_allowing(&["*.example"]), "192.0.2.66:80").await;
    for (address, port, served) in [
        ("203.0.113.5", 80, true),
        ("203.0.113.5", 443, false),
        ("203.0.113.6", 80, false),
        ("198.51.100.9", 4430, true),
        ("2001:db8::5", 4430, false),
    ] {
        let found = harness.proxy.context.is_gateway_address(address.parse().unwrap(), port);
        assert_eq!(found, served, "{address} {port}");
    }
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_fails_or_is_slow() {
    let harness = ProxyHarness::new(&policy_allowing(&["good.example"]), "192.0.2.66:443").await;
    let server = harness.listen("good.example", "203.0.113.1", 443).await;
    // The addresses refuse, stay silent, and accept, in this order.
    harness.set_name("good.example", &["2001:4860::1", "2001:4860::2", "203.0.113.1"]);
    harness.network.unresponsive.lock().unwrap().insert("2001:4860::2".parse().unwrap());
    let mut client = harness.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    accept_next(&server).await;
    let dialed = harness.network.dialed.lock().unwrap().clone();
    assert_eq!(dialed[..2], ["[2001:4860::1]:443", "203.0.113.1:443"].map(|a| a.parse().unwrap()));

    harness.set_name("good.example", &["2001:4860::2", "203.0.113.1"]);
    let mut client = harness.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    accept_next(&server).await;

    harness.set_name("good.example", &["2001:4860::2"]);
    let start = Instant::now();
    let mut client = harness.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    assert_eq!(read_alert(&mut client).await, 80);
    assert!(start.elapsed() >= Duration::from_millis(500));
    assert_eq!(harness.first_event().await.reason, "unreachable");
}

#[tokio::test]
async fn a_client_that_goes_ends_the_dialling() {
    let harness = ProxyHarness::new(&policy_allowing(&["good.example"]), "192.0.2.66:443").await;
    harness.set_name("good.example", &["203.0.113.1"]);
    harness.network.unresponsive.lock().unwrap().insert("203.0.113.1".parse().unwrap());
    let mut client = harness.connect().await;
    client.write_all(&client_hello("good.example")).await.unwrap();
    super::harness::wait_until("it dials", || !harness.network.dialed.lock().unwrap().is_empty())
        .await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    super::harness::wait_until("it is over", || harness.active() == 0).await;
    assert!(harness.events().is_empty());
}
