//! `cargo xtask bench`: measures, and prints tables with ratios and targets. `docs/performance.md`
//! explains the numbers. Traffic runs only inside network namespaces and for a limited time. The
//! benchmark removes everything that it creates.
//!
//! Subjects under comparison are measured alternately for several rounds, and the median counts, so
//! that changes in the machine's load affect all of them. Targets are printed beside the results
//! and never asserted.

#![expect(clippy::print_stdout, reason = "it is for people to read")]

mod apply;
mod attach;
mod bulk_tcp;
mod dataplane;
mod dropping;
mod forwarding;
mod frame_sender;
mod gateway_bench;
mod machine_info;
mod memory;
mod packet_path;
mod prefix_lists;
mod profile;
mod proxy_bench;
mod result_table;
mod reverse_proxy;
mod rounds;
mod rules_bench;
mod traffic_path;
mod watching;
mod wrk;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use machine_info::MachineInfo;
use profile::BenchProfile;
use result_table::ResultTable;

#[derive(Parser)]
#[command(
    about = "Measures the packet path, forwarding, policies, proxied connections, public URLs, and \
             header rules"
)]
struct BenchOptions {
    /// Run for seconds instead of minutes. This only shows that everything works; the numbers mean
    /// little.
    #[arg(long)]
    quick: bool,
    /// Measure only this subject. Can be given several times.
    #[arg(long, value_enum)]
    only: Vec<BenchSubject>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BenchSubject {
    /// The cost of a packet.
    PacketPath,
    /// Packets per second.
    Forwarding,
    /// Denied packets per second.
    Dropping,
    /// Throughput of one TCP connection.
    Bulk,
    /// The time until a policy is enforced.
    Apply,
    /// The times to attach, change, adopt and detach many sandboxes.
    Attach,
    /// The memory of policies.
    Memory,
    /// Connections through the egress proxy.
    Proxied,
    /// Requests through the gateway.
    Gateway,
    /// Watching many sandboxes, and recording what they are denied.
    Watching,
    /// Requests whose headers `network.rules` set.
    Rules,
}

impl BenchSubject {
    fn run(self, effort: &BenchProfile) -> Result<Vec<ResultTable>> {
        match self {
            Self::PacketPath => packet_path::run(effort),
            Self::Forwarding => forwarding::run(effort),
            Self::Dropping => dropping::run(effort),
            Self::Bulk => bulk_tcp::run(effort),
            Self::Apply => apply::run(effort),
            Self::Attach => attach::run(effort),
            Self::Memory => memory::run(effort),
            Self::Proxied => proxy_bench::run(effort),
            Self::Gateway => gateway_bench::run(effort),
            Self::Watching => watching::run(effort),
            Self::Rules => rules_bench::run(effort),
        }
    }
}

fn main() -> Result<()> {
    let options = BenchOptions::parse();
    let effort = if options.quick { BenchProfile::QUICK } else { BenchProfile::FULL };
    println!("{}\n", MachineInfo::current()?);
    println!("Medians of {} rounds, in turns.\n", effort.rounds);
    for subject in BenchSubject::value_variants() {
        if options.only.is_empty() || options.only.contains(subject) {
            for table in subject.run(&effort)? {
                println!("{table}");
            }
            let spread = rounds::take_spread() * 100.0;
            if spread > 0.0 {
                println!("Spread: half of the rounds lie within ±{spread:.0} % of their median.\n");
            }
        }
    }
    Ok(())
}
