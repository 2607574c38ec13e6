//! `cargo xtask bench`: measures, and prints tables with ratios and targets. Traffic runs inside
//! network namespaces only, for a bounded time, and nothing is left behind.
#![expect(clippy::print_stdout, reason = "it is for people to read")]

use anyhow::Result;
use clap::{Parser, ValueEnum};
use policy_tests::bench::{
    Effort, Table, apply, attach, bulk, dropping, forwarding, gateway, machine::Machine, memory,
    packet_path, proxied,
};

#[derive(Parser)]
#[command(
    about = "Measures the packet path, forwarding, policies, proxied connections, and public URLs"
)]
struct Options {
    /// Seconds instead of minutes: shows that everything runs; the numbers mean little.
    #[arg(long)]
    quick: bool,
    /// Measure only this; can be given several times.
    #[arg(long, value_enum)]
    only: Vec<Subject>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// What a packet costs.
    PacketPath,
    /// Packets per second.
    Forwarding,
    /// Denied packets per second.
    Dropping,
    /// One TCP connection.
    Bulk,
    /// The time until a policy is enforced.
    Apply,
    /// The time to attach interfaces.
    Attach,
    /// The memory of policies.
    Memory,
    /// Connections through the egress proxy.
    Proxied,
    /// Requests through the gateway.
    Gateway,
}

impl Subject {
    fn run(self, effort: &Effort) -> Result<Vec<Table>> {
        match self {
            Self::PacketPath => packet_path::run(effort),
            Self::Forwarding => forwarding::run(effort),
            Self::Dropping => dropping::run(effort),
            Self::Bulk => bulk::run(effort),
            Self::Apply => apply::run(effort),
            Self::Attach => attach::run(effort),
            Self::Memory => memory::run(effort),
            Self::Proxied => proxied::run(effort),
            Self::Gateway => gateway::run(effort),
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    println!("{}\n", Machine::this()?);
    println!("Medians of {} rounds, in turns.\n", effort.rounds);
    for subject in Subject::value_variants() {
        if options.only.is_empty() || options.only.contains(subject) {
            for table in subject.run(&effort)? {
                println!("{table}");
            }
        }
    }
    Ok(())
}
