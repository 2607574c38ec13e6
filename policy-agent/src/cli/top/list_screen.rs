//! Draws the list of sandboxes. Only the rows that fit are built, however many sandboxes there are.

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{
    quantities::{bit_rate, short_count, short_number, sparkline},
    sandbox_rates::SandboxRates,
    screen::{column_style, denied_style, observed_style},
    view_state::ViewState,
};

/// Columns of a sparkline.
const SPARKLINE: u16 = 20;
/// The width from which on there is room for sparklines.
const WIDE: u16 = 96;

/// Draws the list.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &ViewState) {
    let shown = state.shown();
    if shown.is_empty() {
        let nothing = match state.filter.as_str() {
            "" => "There are no sandboxes. `policy-agent apply -f FILE` makes some.".to_owned(),
            filter => format!("No sandbox has an ID with {filter:?} in it."),
        };
        frame.render_widget(Paragraph::new(nothing), area);
        return;
    }
    let is_wide = area.width >= WIDE;
    let selected = state.selected_place(&shown);
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    let first = (selected / room) * room;
    let rows = shown.iter().enumerate().skip(first).take(room).map(|(place, rates)| {
        let style = match place == selected {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        sandbox_row(rates, is_wide).style(style)
    });
    let history = if is_wide { SPARKLINE } else { 0 };
    let widths = [
        Constraint::Fill(3),
        Constraint::Length(9),
        Constraint::Length(history),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Fill(2),
    ];
    let header = ["SANDBOX", "RATE", "", "PKT/S", "DENIED/S", "DENIED", "PROXIED", "STATUS"];
    let header = header.map(|title| match title {
        "SANDBOX" | "STATUS" | "" => Line::from(title),
        numeric => Line::from(numeric).right_aligned(),
    });
    let table = Table::new(rows, widths).header(Row::new(header).style(column_style()));
    frame.render_widget(table, area);
}

fn sandbox_row(rates: &SandboxRates, is_wide: bool) -> Row<'static> {
    let history = match is_wide {
        true => sparkline(rates.history.iter().copied(), SPARKLINE.into()),
        false => String::new(),
    };
    let number = |text: String| Cell::from(Line::from(text).right_aligned());
    let denied_cell = |text: String, is_denied: bool| {
        let style = if is_denied { denied_style() } else { Style::new() };
        number(text).style(style)
    };
    let sample = &rates.sample;
    Row::new([
        Cell::from(sample.id.clone()),
        number(bit_rate(rates.bytes)),
        Cell::from(history),
        number(short_number(rates.packets)),
        denied_cell(short_number(rates.denied), rates.denied > 0.0),
        number(short_count(sample.denied.packets)),
        number(short_count(sample.proxied_connections)),
        Cell::from(status_line(rates)),
    ])
}

/// The status, with what nobody should overlook first.
pub(super) fn status_line(rates: &SandboxRates) -> Line<'static> {
    let sample = &rates.sample;
    let mut spans = Vec::new();
    if rates.is_observed() {
        let seen = short_count(sample.would_deny.packets);
        spans.push(Span::styled(format!("OBSERVED {seen}"), observed_style()));
        spans.push(Span::raw(" "));
    }
    let style = if sample.status == "enforcing" { Style::new() } else { denied_style() };
    if sample.status != "enforcing" || !rates.is_observed() {
        spans.push(Span::styled(sample.status.clone(), style));
    }
    Line::from(spans)
}
