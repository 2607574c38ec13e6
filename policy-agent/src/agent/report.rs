//! A sandbox as users see it: what was asked for, whether it is enforced, and what was counted.
//! Without secrets, which a specification leaves out when it is serialised.

use std::collections::BTreeMap;

use policy_common::{
    counter::{Counter, Counters},
    reason::Reason,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    change::add,
    egress::Egress,
    kernel::Kernel,
    sandbox::{Sandbox, Status},
};
use crate::{dataplane::PolicyId, policy::SandboxSpec};

/// What `get` and `GET /agent/v1/sandboxes` show of a sandbox.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was asked for.
    #[serde(flatten)]
    pub spec: SandboxSpec,
    /// Whether it is enforced.
    #[schema(value_type = String)]
    pub status: Status,
    /// The compiled policy in force, as events name it; equal policies have the same.
    #[schema(value_type = Option<u16>)]
    pub policy_id: Option<PolicyId>,
    /// What came from the sandbox, or went to it, and passed.
    pub passed: Count,
    /// What was dropped.
    pub denied: Count,
    /// The same by reason; those that never happened are left out.
    pub counters: BTreeMap<&'static str, Count>,
    /// Connections that it has through the egress proxy.
    pub proxied_connections: usize,
    /// Events that were not written, since a sandbox may write so many per second only.
    pub events_suppressed: u64,
    /// Events that were not written because nobody read the earlier ones in time.
    pub events_lost: u64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Count {
    /// Packets; a super-packet counts as those it stands for.
    pub packets: u64,
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
}

impl Report {
    /// Reads the counters of a sandbox.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn of(sandbox: &Sandbox, kernel: &dyn Kernel, egress: &dyn Egress) -> anyhow::Result<Self> {
        let totals = totals(sandbox, kernel)?;
        let limits = kernel.limits(sandbox.slot)?;
        let count = |reason: Reason| (reason, Count::from(totals.by_reason[reason as usize]));
        let counts = || Reason::counted().map(count);
        Ok(Self {
            spec: sandbox.spec(),
            status: sandbox.status.clone(),
            policy_id: sandbox.policy,
            passed: sum(counts().filter(|(reason, _)| reason.passes())),
            denied: sum(counts().filter(|(reason, _)| !reason.passes())),
            counters: counts()
                .filter(|(_, count)| *count != Count::default())
                .map(|(reason, count)| (reason.label(), count))
                .collect(),
            proxied_connections: egress.active(sandbox.slot),
            events_suppressed: limits.events_suppressed,
            events_lost: limits.events_lost,
        })
    }
}

/// All that was counted for a sandbox, in the slots that it had before, too.
///
/// # Errors
/// The kernel cannot be asked.
pub fn totals(sandbox: &Sandbox, kernel: &dyn Kernel) -> anyhow::Result<Counters> {
    let mut totals = *sandbox.carried;
    add(&mut totals, &kernel.counters(sandbox.slot)?);
    Ok(totals)
}

impl From<Counter> for Count {
    fn from(Counter { packets, bytes }: Counter) -> Self {
        Self { packets, bytes }
    }
}

fn sum(counts: impl Iterator<Item = (Reason, Count)>) -> Count {
    counts.fold(Count::default(), |sum, (_, count)| Count {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    })
}
