//! Pages of a sandbox list, and the cursor at which the next page begins.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;

use super::list_query::{ListQuery, SortOrder};
use crate::{agent::Sandbox, policy::SandboxId};

/// One page of a list.
pub(super) struct SandboxPage {
    /// The sandboxes on the page.
    pub sandboxes: Vec<Arc<Sandbox>>,
    /// The cursor of the last sandbox, if more follow.
    pub next: Option<PageCursor>,
}

/// The position of a sandbox in any list. It stays valid when other sandboxes are created or
/// deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PageCursor {
    started_at: Timestamp,
    id: SandboxId,
}

impl PageCursor {
    fn for_sandbox(sandbox: &Sandbox) -> Self {
        Self { started_at: sandbox.lifetime.started_at(), id: sandbox.id().clone() }
    }
}

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.started_at.as_nanosecond(), self.id)
    }
}

impl FromStr for PageCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let cursor = text.split_once('_').and_then(|(started_at, id)| {
            // 19 digits reach the year 2286.
            let started_at = Timestamp::from_nanosecond(started_at.parse().ok()?).ok()?;
            Some(Self { started_at, id: id.parse().ok()? })
        });
        cursor.ok_or("send what X-Next-Token said, as it is")
    }
}

/// Sorts the sandboxes and returns the page that `query` selects.
pub(super) fn paginate(mut sandboxes: Vec<Arc<Sandbox>>, query: &ListQuery) -> SandboxPage {
    sandboxes.sort_by_cached_key(|sandbox| PageCursor::for_sandbox(sandbox));
    if query.order == SortOrder::Descending {
        sandboxes.reverse();
    }
    if let Some(last) = &query.after {
        sandboxes.retain(|sandbox| match query.order {
            SortOrder::Ascending => PageCursor::for_sandbox(sandbox) > *last,
            SortOrder::Descending => PageCursor::for_sandbox(sandbox) < *last,
        });
    }
    let has_more = sandboxes.len() > query.limit;
    sandboxes.truncate(query.limit);
    let next = sandboxes.last().filter(|_| has_more).map(|last| PageCursor::for_sandbox(last));
    SandboxPage { sandboxes, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        let cursor =
            PageCursor { started_at: Timestamp::UNIX_EPOCH, id: "web".parse().expect("an ID") };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "web", "_web", "0_", "0_W", "1970-01-01T00:00:00Z_web"] {
            assert!(bad.parse::<PageCursor>().is_err(), "{bad}");
        }
    }
}
