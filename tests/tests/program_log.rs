//! What should never happen, the kernel programs log, and the agent hands it on.

use std::sync::Mutex;

use aya::maps::{Map, MapData, ProgramArray};
use policy_agent::{
    dataplane::{DenyAction, Inbound},
    policy::{self, Defaults, Floor, Policy},
};
use policy_common::{
    ABI_VERSION,
    name::{TC_PROGRAMS, tail},
};
use policy_tests::{
    kernel::{Action, Kernel},
    packet::{
        Datagram, Payload,
        cast::{SANDBOX, SERVER},
    },
};

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collector;

impl log::Log for Collector {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOGGED.lock().expect("no panic before").push(format!(
            "{} {}",
            record.level(),
            record.args()
        ));
    }

    fn flush(&self) {}
}

#[test]
fn a_table_without_the_program_that_answers_is_logged_and_the_packet_dropped() {
    log::set_logger(&Collector).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let mut kernel = Kernel::open(DenyAction::Reject, Inbound::Any).expect("the programs load");
    kernel.sandbox(Some(SANDBOX.mac), &[SANDBOX.v4.into()]).unwrap();
    let network = policy::parse(br#"{"denyOut": ["0.0.0.0/0"]}"#).unwrap();
    let (defaults, floor) = (Defaults { nameserver: [8, 8, 8, 8].into() }, Floor::default());
    let shut = Policy::new(&network, None, &defaults, &floor).unwrap();
    kernel.publish(&policy::compile(&shut, &floor)).unwrap();

    let pin = kernel.pins().join(format!("v{ABI_VERSION}/maps/{TC_PROGRAMS}"));
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut programs = ProgramArray::try_from(map).unwrap();
    programs.clear_index(&tail::REJECT).unwrap();

    let syn = Datagram::new(SANDBOX.v4, SERVER.v4, Payload::syn(40_000, 80));
    let outcome = kernel.from_sandbox(syn.frame().bytes()).unwrap();
    assert_eq!(outcome.action, Action::Drop);
    let logged = LOGGED.lock().unwrap();
    assert!(logged.iter().any(|line| line.contains("has no program that answers")), "{logged:?}");
}
