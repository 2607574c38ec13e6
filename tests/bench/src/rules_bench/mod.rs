//! Measures requests to a name with `network.rules`, compared with nginx and HAProxy doing the same:
//! they end TLS with a certificate that the sandbox trusts, set a header, and encrypt again towards the
//! server, whose certificate they verify.

mod first_byte;
mod idle_memory;
mod leaf_rate;
mod rule_client;
mod rule_peers;
mod rule_requests;
mod rule_setup;

use anyhow::Result;

use super::{BenchProfile, ResultTable};
use rule_setup::{RuleSetup, RuleVariant};

/// Measures requests, connections and certificates.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let idle = idle_memory::run(effort)?;
    let lanes = RuleVariant::ALL.map(|variant| RuleSetup::build(variant, 1));
    let mut lanes = lanes.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(vec![
        rule_requests::run(effort, &mut lanes)?,
        first_byte::run(effort, &mut lanes)?,
        idle,
        leaf_rate::run(effort)?,
    ])
}
