//! A sandbox that sends anything at all, on a real wire: nothing crosses that the law denies.
//!
//! Random policies are put in force through the API, and raw frames are sent out of the sandbox: valid
//! ones, bent ones, cut ones, fragments, tunnels. At the internet's end of the uplink everything that
//! arrives is held against the oracle. The seed is printed; `POLICY_TEST_SEED` sets it, and
//! `POLICY_TEST_FRAMES` how many frames are sent (`cargo xtask fuzz --frames N`).

#![expect(clippy::print_stdout, reason = "the seed has to be known to run a failure again")]

mod bent;
mod crossing;
mod scene;

use fastrand::Rng;
use policy_tests::random::{Packet, Packets, Random};

use self::{bent::Bent, scene::Scene};

/// Frames under one policy.
const PER_POLICY: usize = 1_000;

#[test]
fn nothing_crosses_that_the_oracle_denies() {
    let (seed, frames) = (number("POLICY_TEST_SEED"), number("POLICY_TEST_FRAMES"));
    let (seed, frames) = (seed.unwrap_or_else(|| fastrand::u64(..)), frames.unwrap_or(20_000));
    println!("POLICY_TEST_SEED={seed} POLICY_TEST_FRAMES={frames}");
    let mut rng = Rng::with_seed(seed);
    let mut scene = Scene::build(seed);
    while scene.sent() < frames {
        let random = scene.next_policy(&mut rng);
        send_under(&mut scene, &random, &mut rng);
    }
    let few = scene.sent() / 50;
    scene.says_what_it_saw(few);
}

/// Every truncation of valid frames of every kind, under a policy that allows them.
#[test]
fn no_truncation_crosses_that_the_oracle_denies() {
    let seed = number("POLICY_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("POLICY_TEST_SEED={seed}");
    let mut scene = Scene::build(seed);
    scene.allow_everything();
    for frame in bent::valid() {
        let lengths = 14..=frame.bytes().len();
        scene.send(lengths.map(|length| frame.clone().cut(length)).collect());
    }
    scene.says_what_it_saw(10);
}

fn send_under(scene: &mut Scene, random: &Random, rng: &mut Rng) {
    let mut fork = rng.fork();
    let mut packets = Packets::near(&random.nets, &mut fork);
    let mut bent = Bent::new(rng.fork());
    let frames = std::iter::repeat_with(|| packets.draw()).filter_map(|packet| match packet {
        Packet::Out(frame) => Some(bent.bend(frame)),
        // Nobody connects to this sandbox: what it sends is outbound.
        Packet::In(..) => None,
    });
    let frames: Vec<_> = frames.take(PER_POLICY).collect();
    scene.send(frames);
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
