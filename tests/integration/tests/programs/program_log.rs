//! The kernel programs log internal errors, and the agent forwards them to its own log.

use std::sync::Mutex;

use aya::maps::{Map, MapData, ProgramArray};
use policy_agent::{
    dataplane::{DenyAction, InboundSource},
    policy::{self, Floor, Policy, PolicyDefaults},
};
use policy_common::{
    ABI_VERSION,
    bpf_names::{TC_PROGRAMS, tail_call_index},
};
use policy_integration::program_runner::{FrameAction, ProgramRunner};
use policy_testbed::packets::{
    IpDatagram, IpPayload,
    test_hosts::{SANDBOX, SERVER},
};

/// The message of the programs if the map of programs has no entry for the reply.
const MISSING_PROGRAM_MESSAGE: &str = "has no program that answers";

static LOGGED_LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The logger of the process. Other tests log at the same time, so it keeps only one kind of
/// message.
struct LogCollector;

impl log::Log for LogCollector {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        if line.contains(MISSING_PROGRAM_MESSAGE) {
            LOGGED_LINES.lock().expect("no panic before").push(line);
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_table_without_the_program_that_answers_is_logged_and_the_packet_dropped() {
    log::set_logger(&LogCollector).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let mut kernel =
        ProgramRunner::open(DenyAction::Reject, InboundSource::Any).expect("the programs load");
    kernel.reset_sandbox(Some(SANDBOX.mac), &[SANDBOX.v4.into()]).unwrap();
    let network = policy::parse_json(br#"{"denyOut": ["0.0.0.0/0"]}"#).unwrap();
    let (defaults, floor) = (
        PolicyDefaults { nameserver: [8, 8, 8, 8].into(), ..PolicyDefaults::default() },
        Floor::default(),
    );
    let shut = Policy::new(&network, None, &defaults, &floor).unwrap();
    kernel.publish(&policy::compile_policy(&shut, &floor)).unwrap();

    let pin = kernel.pins().join(format!("v{ABI_VERSION}/maps/{TC_PROGRAMS}"));
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut programs = ProgramArray::try_from(map).unwrap();
    programs.clear_index(&tail_call_index::REJECT).unwrap();

    let syn = IpDatagram::new(SANDBOX.v4, SERVER.v4, IpPayload::syn(40_000, 80));
    let outcome = kernel.from_sandbox(syn.to_frame().bytes()).unwrap();
    assert_eq!(outcome.action, FrameAction::Drop);
    let logged = LOGGED_LINES.lock().unwrap();
    assert!(!logged.is_empty(), "no line says that the table {MISSING_PROGRAM_MESSAGE}");
}
