//! Measures how quickly an authority issues certificates for new names.

use anyhow::{Error, Result};
use nix::time::{ClockId, clock_gettime};
use policy_agent::{ca::SandboxCa, policy::DomainName};

use super::super::{BenchProfile, ResultTable, result_table::at_least_target, rounds::medians};

/// The minimum number of certificates per second of one core.
const RATE_TARGET: f64 = 2000.0;

/// Measures on one thread, by its own CPU time.
pub(super) fn run(effort: &BenchProfile) -> Result<ResultTable> {
    let ca = SandboxCa::generate(&"bench".parse()?)?;
    let rates = medians(effort.rounds, &mut [()], |()| measure_rate(&ca, effort.seconds))?;
    let columns = ["certificates for new names", "per s and core", "target"];
    let mut table = ResultTable::new("Certificates", &columns);
    let target = at_least_target(rates[0], RATE_TARGET, "");
    table.add_row(["ECDSA P-256".to_owned(), format!("{:.0}", rates[0]), target]);
    Ok(table)
}

fn measure_rate(ca: &SandboxCa, seconds: f64) -> Result<f64> {
    let (begin, mut count) = (thread_cpu_seconds()?, 0_u32);
    loop {
        let name = DomainName::parse(&format!("n{count}.bench.example")).map_err(Error::msg)?;
        ca.issue(&name)?;
        count += 1;
        let spent = thread_cpu_seconds()? - begin;
        if spent >= seconds {
            return Ok(f64::from(count) / spent);
        }
    }
}

/// The CPU time of the calling thread.
fn thread_cpu_seconds() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}
