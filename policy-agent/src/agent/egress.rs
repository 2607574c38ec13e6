//! What the agent tells the egress proxy, or a stand-in when the agent itself is tested.

use std::sync::Arc;

use super::{rules::Rules, tally::Tally};
use crate::{
    dataplane::{Door, Slot},
    policy::SandboxId,
};

/// The egress proxy. Its methods do not wait for anybody's connection.
pub trait Egress: Send + Sync {
    /// A sandbox's connections come out of this door from now on, these rules hold for them, and
    /// here they are counted. The slot has no door yet.
    ///
    /// # Errors
    /// The door's listeners cannot be served.
    fn open(
        &self,
        slot: Slot,
        sandbox: &SandboxId,
        tally: &Arc<Tally>,
        rules: &Arc<Rules>,
        door: Door,
    ) -> anyhow::Result<()>;

    /// Whether the slot has a door.
    fn is_open(&self, slot: Slot) -> bool;

    /// These rules hold from now on. Connections that they do not let out are closed when this
    /// returns. Without a door it does nothing.
    fn follow(&self, slot: Slot, rules: &Arc<Rules>);

    /// The slot has no door any more, and its connections are closed. Without a door it does nothing.
    fn close(&self, slot: Slot);

    /// Connections that a slot's sandbox has through the proxy.
    fn active(&self, slot: Slot) -> usize;
}
