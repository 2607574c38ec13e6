//! What is shown: the sandboxes, their order, the selected one, and the answer to each key.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;

use super::{
    flow_details::FlowDetails,
    sandbox_rates::{SandboxRates, TrafficSample},
};

/// Rows that a page up or down moves by.
const PAGE: isize = 10;

/// The column that sandboxes are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SortColumn {
    #[default]
    Rate,
    Denied,
    WouldDeny,
    Proxied,
    Sandbox,
}

impl SortColumn {
    const fn next(self) -> Self {
        match self {
            Self::Rate => Self::Denied,
            Self::Denied => Self::WouldDeny,
            Self::WouldDeny => Self::Proxied,
            Self::Proxied => Self::Sandbox,
            Self::Sandbox => Self::Rate,
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Denied => "denied",
            Self::WouldDeny => "would deny",
            Self::Proxied => "proxied",
            Self::Sandbox => "sandbox",
        }
    }
}

/// What a key asks of the sources of updates.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ViewAction {
    Quit,
    /// Follow the flows of this sandbox.
    Follow(String),
    Unfollow,
}

/// The state of the view.
#[derive(Debug, Default)]
pub(super) struct ViewState {
    sandboxes: BTreeMap<String, SandboxRates>,
    looked_at: Option<Instant>,
    pub(super) sort: SortColumn,
    pub(super) reversed: bool,
    pub(super) filter: String,
    pub(super) edits_filter: bool,
    pub(super) shows_help: bool,
    /// The ID of the selected sandbox. Default: the first.
    selected: Option<String>,
    pub(super) details: Option<FlowDetails>,
    pub(super) problem: Option<String>,
}

impl ViewState {
    /// Adds a look at all sandboxes.
    pub(super) fn add_traffic(&mut self, samples: Vec<TrafficSample>, now: Instant) {
        let elapsed = self.looked_at.map_or(Duration::MAX, |before| now - before);
        let mut before = std::mem::take(&mut self.sandboxes);
        for sample in samples {
            let id = sample.id.clone();
            let rates = match before.remove(&id) {
                None => SandboxRates::first(sample),
                Some(mut known) => {
                    known.add(sample, elapsed);
                    known
                }
            };
            self.sandboxes.insert(id, rates);
        }
        self.looked_at = Some(now);
        self.problem = None;
    }

    /// Adds entries of the record of the sandbox that is shown.
    pub(super) fn add_flows(&mut self, flows: &[Value]) {
        if let Some(details) = &mut self.details {
            details.add(flows);
        }
    }

    /// Says what went wrong, until the next look.
    pub(super) fn report_problem(&mut self, problem: String) {
        self.problem = Some(problem);
    }

    /// All sandboxes.
    pub(super) fn all(&self) -> impl Iterator<Item = &SandboxRates> {
        self.sandboxes.values()
    }

    /// The sandbox with this ID.
    pub(super) fn sandbox(&self, id: &str) -> Option<&SandboxRates> {
        self.sandboxes.get(id)
    }

    /// The sandboxes that the filter selects, in order.
    pub(super) fn shown(&self) -> Vec<&SandboxRates> {
        let matches = |rates: &&SandboxRates| rates.sample.id.contains(&self.filter);
        let mut shown: Vec<_> = self.sandboxes.values().filter(matches).collect();
        // Stable: equal ones stay sorted by their IDs.
        shown.sort_by(|one, other| self.compare(one, other));
        shown
    }

    fn compare(&self, one: &SandboxRates, other: &SandboxRates) -> Ordering {
        let descending = match self.sort {
            SortColumn::Rate => other.bytes.total_cmp(&one.bytes),
            SortColumn::Denied => other
                .denied
                .total_cmp(&one.denied)
                .then_with(|| other.sample.denied.packets.cmp(&one.sample.denied.packets)),
            SortColumn::WouldDeny => {
                other.sample.would_deny.packets.cmp(&one.sample.would_deny.packets)
            }
            SortColumn::Proxied => {
                other.sample.proxied_connections.cmp(&one.sample.proxied_connections)
            }
            SortColumn::Sandbox => one.sample.id.cmp(&other.sample.id),
        };
        if self.reversed { descending.reverse() } else { descending }
    }

    /// The place of the selected sandbox among those that are shown.
    pub(super) fn selected_place(&self, shown: &[&SandboxRates]) -> usize {
        let selected = self.selected.as_deref();
        shown.iter().position(|rates| Some(&*rates.sample.id) == selected).unwrap_or(0)
    }

    /// Shows one sandbox.
    pub(super) fn open_details(&mut self, id: &str) {
        self.selected = Some(id.to_owned());
        self.details = Some(FlowDetails::new(id));
    }

    /// Answers a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<ViewAction> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(ViewAction::Quit);
        }
        if self.edits_filter {
            self.edit_filter(key.code);
            return None;
        }
        if std::mem::take(&mut self.shows_help) {
            return None;
        }
        match key.code {
            KeyCode::Char('q') => return Some(ViewAction::Quit),
            KeyCode::Char('?' | 'h') => self.shows_help = true,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            code if self.details.is_some() => return self.press_in_details(code),
            code => return self.press_in_list(code),
        }
        None
    }

    fn press_in_details(&mut self, code: KeyCode) -> Option<ViewAction> {
        if matches!(code, KeyCode::Esc | KeyCode::Backspace | KeyCode::Left) {
            self.details = None;
            return Some(ViewAction::Unfollow);
        }
        None
    }

    fn press_in_list(&mut self, code: KeyCode) -> Option<ViewAction> {
        match code {
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.edits_filter = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Enter | KeyCode::Right => {
                let shown = self.shown();
                let id = shown.get(self.selected_place(&shown))?.sample.id.clone();
                self.open_details(&id);
                return Some(ViewAction::Follow(id));
            }
            _ => {}
        }
        None
    }

    fn edit_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.edits_filter = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.edits_filter = false;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    /// Moves the selection, or scrolls.
    fn step(&mut self, by: isize) {
        if let Some(details) = &mut self.details {
            let last = details.newest(true).len().saturating_sub(1);
            details.scrolled = details.scrolled.saturating_add_signed(by).min(last);
            return;
        }
        let shown = self.shown();
        let last = shown.len().saturating_sub(1);
        let place = self.selected_place(&shown).saturating_add_signed(by).min(last);
        self.selected = shown.get(place).map(|rates| rates.sample.id.clone());
    }
}
