//! A page of a list, and the token that says where the next one begins.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;

use super::query::{Order, Query};
use crate::{agent::Sandbox, policy::SandboxId};

/// Part of a list.
pub struct Page {
    /// What is on it.
    pub sandboxes: Vec<Arc<Sandbox>>,
    /// The place of the last one, if there are more.
    pub next: Option<Place>,
}

/// The place of a sandbox in every list: it stays when others come or go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    started: Timestamp,
    id: SandboxId,
}

impl Place {
    fn of(sandbox: &Sandbox) -> Self {
        Self { started: sandbox.life.started(), id: sandbox.id().clone() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.started.as_nanosecond(), self.id)
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place = text.split_once('_').and_then(|(started, id)| {
            // 19 digits reach to the year 2286.
            let started = Timestamp::from_nanosecond(started.parse().ok()?).ok()?;
            Some(Self { started, id: id.parse().ok()? })
        });
        place.ok_or("send what X-Next-Token said, as it is")
    }
}

/// The page that is asked for.
pub fn of(mut sandboxes: Vec<Arc<Sandbox>>, query: &Query) -> Page {
    sandboxes.sort_by_cached_key(|sandbox| Place::of(sandbox));
    if query.order == Order::Descending {
        sandboxes.reverse();
    }
    if let Some(last) = &query.after {
        sandboxes.retain(|sandbox| match query.order {
            Order::Ascending => Place::of(sandbox) > *last,
            Order::Descending => Place::of(sandbox) < *last,
        });
    }
    let more = sandboxes.len() > query.limit;
    sandboxes.truncate(query.limit);
    let next = sandboxes.last().filter(|_| more).map(|last| Place::of(last));
    Page { sandboxes, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let place = Place { started: Timestamp::UNIX_EPOCH, id: "web".parse().expect("an ID") };
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in ["", "web", "_web", "0_", "0_W", "1970-01-01T00:00:00Z_web"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
