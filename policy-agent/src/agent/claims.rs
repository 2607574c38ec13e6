//! Where a sandbox may be: on an interface that is there, that nobody else has and that the host does
//! not need for itself, with addresses that nobody else has in that network namespace.

use std::{collections::HashSet, sync::Arc};

use super::{
    presence::{Namespace, namespace},
    reconciler::Reconciler,
    sandbox::{Sandbox, interface},
};
use crate::{
    dataplane::Interface,
    policy::{
        Invalid, SandboxId, SandboxSpec,
        conflict::{self, address_taken, interface_taken},
    },
};

/// The loopback interface, which every network namespace has.
const LOOPBACK: &str = "lo";

/// Who has what.
pub type Claims = conflict::Claims<Namespace, Claimant>;

/// Who claims something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The sandbox.
    pub id: SandboxId,
    /// Whether it is where it was found when it was attached, which may be out of date.
    is_known: bool,
}

impl Claimant {
    fn known(id: &SandboxId) -> Self {
        Self { id: id.clone(), is_known: true }
    }

    fn new(id: &SandboxId) -> Self {
        Self { id: id.clone(), is_known: false }
    }
}

impl Reconciler {
    /// What the sandboxes have, but for the addresses of those that are about to be replaced.
    pub(super) fn claims(&self, replaced: &[SandboxSpec]) -> Claims {
        let replaced: HashSet<&SandboxId> = replaced.iter().map(|spec| &spec.sandbox_id).collect();
        let mut claims = Claims::default();
        for sandbox in self.table.all() {
            let id = sandbox.id();
            let place = sandbox.place.and_then(|place| place.namespace);
            if let Some(namespace) = place {
                claims.claim_interface(namespace, &sandbox.head.interface, Claimant::known(id));
            }
            if replaced.contains(id) {
                continue;
            }
            let Some(namespace) = place.or_else(|| of(&sandbox)) else { continue };
            for address in &sandbox.head.addresses {
                claims.claim_address(namespace, *address, Claimant::known(id));
            }
        }
        claims
    }

    /// An interface has to be there before the kernel can be told to enforce anything on it, and
    /// it belongs to one sandbox. So does an address in a network namespace.
    pub(super) fn check_place(
        &self,
        spec: &SandboxSpec,
        claims: &mut Claims,
        force: bool,
    ) -> Result<(), Invalid> {
        let wanted = interface(spec);
        let known = self.table.get(&spec.sandbox_id);
        let stays = self.stays(spec);
        if known.is_none_or(|sandbox| interface(&sandbox.head) != wanted) {
            self.kernel.presence(&wanted).index(&wanted)?;
            if !force {
                self.refuse_uplink(&wanted)?;
            }
        }
        if !stays {
            self.check_addresses(spec)?;
        }
        // A known sandbox may wait for its namespace, and nobody else can be in it then.
        let Ok(namespace) = namespace(spec.netns.as_deref()) else { return Ok(()) };
        let id = &spec.sandbox_id;
        let owner = claims.claim_interface(namespace, &wanted.name, Claimant::new(id));
        if let Some(owner) = owner.filter(|owner| self.is_other(owner, id, namespace, stays)) {
            return Err(interface_taken(&wanted.name, owner.id.as_str()));
        }
        for (place, address) in spec.addresses.iter().enumerate() {
            let owner = claims.claim_address(namespace, *address, Claimant::new(id));
            if let Some(owner) = owner.filter(|owner| self.is_other(owner, id, namespace, stays)) {
                return Err(address_taken(place, *address, owner.id.as_str(), id.as_str()));
            }
        }
        Ok(())
    }

    /// What the host itself has is no sandbox's: visitors of its public URL would reach the host.
    fn check_addresses(&self, spec: &SandboxSpec) -> Result<(), Invalid> {
        let addresses = &spec.addresses;
        let refuse = |place: usize, problem: String| {
            let address = addresses.get(place).map(ToString::to_string).unwrap_or_default();
            Err(Invalid::entry(format!("addresses[{place}]"), address, problem))
        };
        match self.kernel.host_addresses(spec.netns.as_deref()) {
            Ok(own) => match addresses.iter().position(|one| own.iter().any(|it| it.contains(one)))
            {
                None => Ok(()),
                Some(place) => refuse(
                    place,
                    "belongs to the host itself; write the address that the sandbox has".to_owned(),
                ),
            },
            // A sandbox whose namespace is gone may be changed, and waits for it.
            Err(_) if namespace(spec.netns.as_deref()).is_err() => Ok(()),
            Err(error) => refuse(0, format!("cannot be looked for on the host: {error:#}")),
        }
    }

    /// Refuses an interface that the host needs for itself: a policy on it would cut the host off.
    pub(super) fn refuse_uplink(&self, wanted: &Interface) -> Result<(), Invalid> {
        let refuse = |problem: &str| Err(Invalid::entry("interface", &wanted.name, problem));
        if wanted.name == LOOPBACK {
            return refuse(
                "is the loopback interface, which no sandbox is behind; name its tap or veth",
            );
        }
        match self.kernel.carries_default_route(wanted) {
            Ok(false) => Ok(()),
            Ok(true) => refuse(
                "carries the default route of its network namespace: a policy on it would cut the \
                 host off; name the sandbox's own tap or veth, or force it",
            ),
            Err(error) => refuse(&format!(
                "cannot find out whether it carries the host's default route: {error:#}; force it \
                 if you are sure"
            )),
        }
    }

    /// Whether a sandbox is known with this interface and these addresses: it keeps them.
    pub(super) fn stays(&self, spec: &SandboxSpec) -> bool {
        self.table.get(&spec.sandbox_id).is_some_and(|sandbox| sandbox.is_where(spec))
    }

    /// Whether a claim is somebody else's who is there. What `stays` gives way to no other that does.
    fn is_other(
        &self,
        owner: &Claimant,
        id: &SandboxId,
        namespace: Namespace,
        stays: bool,
    ) -> bool {
        let is_there = || !stays && self.is_in(&owner.id, namespace);
        owner.id != *id && (!owner.is_known || is_there())
    }

    /// Whether a sandbox's namespace is this one. What was found when it was attached may be out
    /// of date: the kernel gives a new namespace the number of one that is gone.
    pub(super) fn is_in(&self, id: &SandboxId, wanted: Namespace) -> bool {
        let Some(sandbox) = self.table.get(id) else { return true };
        namespace(sandbox.head.netns.as_deref()).is_ok_and(|found| found == wanted)
    }
}

/// The namespace that a sandbox waits for.
fn of(sandbox: &Arc<Sandbox>) -> Option<Namespace> {
    namespace(sandbox.head.netns.as_deref()).ok()
}
