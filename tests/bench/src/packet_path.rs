//! Measures the cost of a packet from the sandbox's gate to the verdict, compared with an empty
//! program.
//!
//! Hot: the same destination every time. Random: 65 536 destinations in rotation. A separate
//! program (`policy-ebpf/src/bin/bench.rs`) writes them into the frame. Its cost in front of the
//! empty program is subtracted.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, SchedClassifier},
};
use policy_agent::dataplane::{Dataplane, DenyAction, Slot};

use super::{
    BenchProfile, ResultTable,
    prefix_lists::PrefixLists,
    result_table::at_most_target,
    rounds::{median, medians},
};
use crate::dataplane::{open_dataplane, open_gate, prepare_slot};
use policy_testbed::{
    network::BpffsDirectory,
    packets::{
        EthernetFrame, IpDatagram, IpPayload, TcpFlags,
        test_hosts::{SANDBOX, SERVER},
    },
};

const DESTINATIONS: usize = 65_536;

/// Targets in ns for allowed packets: hot, then random by policy size.
struct PathTargets {
    hot: f64,
    random: [Option<f64>; 3],
}
const IPV4_TARGETS_NS: PathTargets =
    PathTargets { hot: 20.0, random: [None, Some(25.0), Some(60.0)] };
const IPV6_TARGETS_NS: PathTargets =
    PathTargets { hot: 25.0, random: [None, Some(30.0), Some(80.0)] };
/// The target in ns for denied packets.
const DENIED_TARGET_NS: f64 = 60.0;

/// Measures the packet path.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let bpffs = BpffsDirectory::create()?;
    let dataplane = open_dataplane(&bpffs, DenyAction::Drop)?;
    let mut sides = Vec::new();
    for (index, &size) in effort.policy_sizes.iter().enumerate() {
        sides.push(SizedPolicy::open(&dataplane, bpffs.path(), index, size)?);
    }
    let mut bench = BenchPrograms::load()?;
    let mut tables = Vec::new();
    for like in [IpAddr::from(SERVER.v4), SERVER.v6.into()] {
        tables.push(bench.measure_family(effort, &sides, like)?);
    }
    Ok(tables)
}

/// A sandbox with a policy of a given size.
struct SizedPolicy {
    size: usize,
    lists: PrefixLists,
    gate: SchedClassifier,
}

impl SizedPolicy {
    fn open(dataplane: &Dataplane, pins: &Path, index: usize, size: usize) -> Result<Self> {
        let slot = u32::try_from(index + 1).ok().and_then(Slot::new).context("there is a slot")?;
        let lists = PrefixLists::new(size, size, 1);
        prepare_slot(dataplane, slot, Some(SANDBOX.mac), &[SANDBOX.v4.into(), SANDBOX.v6.into()])?;
        dataplane.publish(&[slot], &lists.compile(&[])?)?;
        Ok(Self { size, gate: open_gate(dataplane, slot, pins)?, lists })
    }
}

/// The programs for comparison.
struct BenchPrograms {
    object: Ebpf,
}

impl BenchPrograms {
    fn load() -> Result<Self> {
        let path = object_path();
        let mut object = Ebpf::load_file(&path)
            .with_context(|| format!("loading {}: run `cargo xtask build`", path.display()))?;
        for name in ["empty", "scatter_v4", "scatter_v6"] {
            classifier(&mut object, name)?.load().with_context(|| format!("loading {name}"))?;
        }
        Ok(Self { object })
    }

    /// Runs all measurements of one address family.
    fn measure_family(
        &mut self,
        effort: &BenchProfile,
        sides: &[SizedPolicy],
        like: IpAddr,
    ) -> Result<ResultTable> {
        let (family, targets) =
            if like.is_ipv4() { ("IPv4", IPV4_TARGETS_NS) } else { ("IPv6", IPV6_TARGETS_NS) };
        let columns = ["added, ns (of an empty program)", "hot", "random", "target"];
        let mut table = ResultTable::new(&format!("Packet path, {family}"), &columns);
        let mut bases = (Vec::new(), Vec::new());
        for allowed in [true, false] {
            for (index, side) in sides.iter().enumerate() {
                let to = side.lists.destinations(like, allowed, DESTINATIONS, 2);
                self.set_destinations(&to)?;
                let [empty, hot, scattered, random] = self.measure(effort, side, to[0])?;
                bases.0.push(empty);
                bases.1.push(scattered);
                let (hot, random) = (hot - empty, random - scattered);
                let what = if allowed { "allowed" } else { "denied" };
                table.add_row([
                    format!("{} prefixes, {what}", side.size),
                    format!("{hot:.0} ({:.1})", hot / empty),
                    format!("{random:.0} ({:.1})", random / empty),
                    targets.describe(index, allowed, hot, random),
                ]);
            }
        }
        let [empty, scattered] = [bases.0, bases.1].map(|base| format!("{:.0}", median(base)));
        table.add_row(["(empty program)".to_owned(), empty, scattered, String::new()]);
        Ok(table)
    }

    /// Returns ns per run: the empty program, the gate, then both after random destinations.
    fn measure(
        &mut self,
        effort: &BenchProfile,
        side: &SizedPolicy,
        to: IpAddr,
    ) -> Result<[f64; 4]> {
        let frame = &frame_to(to);
        let scatter = if to.is_ipv4() { "scatter_v4" } else { "scatter_v6" };
        let empty = classifier(&mut self.object, "empty")?.fd()?.try_clone()?;
        let gate = side.gate.fd()?.try_clone()?;
        let mut subjects =
            [("empty", None), ("gate", None), (scatter, Some(&empty)), (scatter, Some(&gate))];
        let medians = medians(effort.rounds, &mut subjects, |(program, measured)| {
            if let Some(measured) = measured {
                self.set_measured(measured)?;
            }
            let program = match *program {
                "gate" => &side.gate,
                name => classifier(&mut self.object, name)?,
            };
            nanoseconds(program, frame, effort.repeats)
        })?;
        Ok([medians[0], medians[1], medians[2], medians[3]])
    }

    fn set_measured(&mut self, program: &ProgramFd) -> Result<()> {
        let map = self.object.map_mut("MEASURED").context("bench.o has no map MEASURED")?;
        ProgramArray::try_from(map)?.set(0, program, 0)?;
        Ok(())
    }

    fn set_destinations(&mut self, destinations: &[IpAddr]) -> Result<()> {
        for (index, destination) in (0..).zip(destinations) {
            match destination {
                IpAddr::V4(address) => {
                    self.set_array_entry("DESTINATIONS_V4", index, address.octets())?
                }
                IpAddr::V6(address) => {
                    self.set_array_entry("DESTINATIONS_V6", index, address.octets())?
                }
            }
        }
        Ok(())
    }

    fn set_array_entry<T: aya::Pod>(&mut self, map: &str, index: u32, value: T) -> Result<()> {
        let map = self.object.map_mut(map).with_context(|| format!("bench.o has no map {map}"))?;
        Array::try_from(map)?.set(index, value, 0)?;
        Ok(())
    }
}

impl PathTargets {
    /// The target for a result in ns, of the `index`th size.
    fn describe(&self, index: usize, allowed: bool, hot: f64, random: f64) -> String {
        if !allowed {
            return at_most_target(hot, DENIED_TARGET_NS, "ns hot");
        }
        let mut target = at_most_target(hot, self.hot, "ns hot");
        if let Some(limit) = self.random[index] {
            target += &format!("; {}", at_most_target(random, limit, "ns random"));
        }
        target
    }
}

/// The time per run, as measured by the kernel.
fn nanoseconds(program: &SchedClassifier, frame: &EthernetFrame, repeat: u32) -> Result<f64> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame.bytes());
    options.repeat = repeat;
    let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
    Ok(result.duration.as_secs_f64() * 1e9)
}

fn frame_to(destination: IpAddr) -> EthernetFrame {
    let source = if destination.is_ipv4() { IpAddr::from(SANDBOX.v4) } else { SANDBOX.v6.into() };
    IpDatagram::new(source, destination, IpPayload::tcp(40_000, 443, TcpFlags::ACK)).to_frame()
}

fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = object.program_mut(name).with_context(|| format!("bench.o has no {name}"))?;
    Ok(program.try_into()?)
}

/// The path of the object that `cargo xtask build` creates.
fn object_path() -> PathBuf {
    let directory = std::env::var_os("POLICY_BPF_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf"),
        PathBuf::from,
    );
    directory.join("bench.o")
}
