//! A sandbox that sends arbitrary frames on a real link: nothing that the policy denies crosses.
//!
//! The tests apply random policies through the API and send raw frames from the sandbox: valid
//! ones, mutated ones, truncated ones, fragments, tunnels. At the internet's end of the uplink,
//! every received frame is compared with the oracle. The seed is printed; `POLICY_TEST_SEED` sets
//! it, and `POLICY_TEST_FRAMES` sets the number of frames (`cargo xtask fuzz --frames N`).

#![expect(clippy::print_stdout, reason = "the seed has to be known to run a failure again")]

mod crossing_check;
mod hostile_sandbox;
mod mutated_frames;

use fastrand::Rng;
use policy_integration::random::{PacketGenerator, RandomPacket, RandomPolicy};

use self::{hostile_sandbox::HostileSandbox, mutated_frames::FrameMutator};

/// The number of frames per policy.
const FRAMES_PER_POLICY: usize = 1_000;

#[test]
fn nothing_crosses_that_the_oracle_denies() {
    let (seed, frames) = (
        number_from_environment("POLICY_TEST_SEED"),
        number_from_environment("POLICY_TEST_FRAMES"),
    );
    let (seed, frames) = (seed.unwrap_or_else(|| fastrand::u64(..)), frames.unwrap_or(20_000));
    println!("POLICY_TEST_SEED={seed} POLICY_TEST_FRAMES={frames}");
    let mut rng = Rng::with_seed(seed);
    let mut scene = HostileSandbox::build(seed);
    while scene.sent_frames() < frames {
        let random = scene.apply_random_policy(&mut rng);
        send_under_policy(&mut scene, &random, &mut rng);
    }
    let few = scene.sent_frames() / 50;
    scene.assert_meaningful_run(few);
}

/// Every truncation of valid frames of every kind, under a policy that allows them.
#[test]
fn no_truncated_frame_crosses_that_the_oracle_denies() {
    let seed = number_from_environment("POLICY_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("POLICY_TEST_SEED={seed}");
    let mut scene = HostileSandbox::build(seed);
    scene.apply_allow_all();
    for frame in mutated_frames::valid_frames() {
        let lengths = 14..=frame.bytes().len();
        scene.send_and_check(lengths.map(|length| frame.clone().truncated(length)).collect());
    }
    scene.assert_meaningful_run(10);
}

fn send_under_policy(scene: &mut HostileSandbox, random: &RandomPolicy, rng: &mut Rng) {
    let mut fork = rng.fork();
    let mut packets = PacketGenerator::near(&random.nets, &mut fork);
    let mut bent = FrameMutator::new(rng.fork());
    let frames =
        std::iter::repeat_with(|| packets.next_packet()).filter_map(|packet| match packet {
            RandomPacket::FromSandbox(frame) => Some(bent.mutate(frame)),
            // This sandbox has no inbound connections: all its packets are outbound.
            RandomPacket::ToSandbox(..) => None,
        });
    let frames: Vec<_> = frames.take(FRAMES_PER_POLICY).collect();
    scene.send_and_check(frames);
}

fn number_from_environment<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
