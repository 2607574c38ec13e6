//! Draws the view: its heading, the list or one sandbox, and the keys.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use super::{
    details_screen, list_screen,
    quantities::{bit_rate, short_number},
    sandbox_rates::SandboxRates,
    view_state::ViewState,
};

const HELP: &str = "\
↑ ↓ k j        select, or scroll
PgUp PgDn      by ten
Home End       first, last
Enter →        show one sandbox
Esc ←          back
s              sort by the next column
r              reverse the order
/              show only IDs that contain a text
Esc            show all again
q  Ctrl-C      quit

Rates are what passed in both directions since the last look.
OBSERVED: what the policy denies passes; the floor is enforced.
";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &ViewState) {
    let lines = [Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)];
    let [heading, body, footer] = Layout::vertical(lines).areas(frame.area());
    frame.render_widget(heading_line(state), heading);
    match &state.details {
        Some(details) => {
            details_screen::draw(frame, body, state.sandbox(&details.sandbox), details)
        }
        None => list_screen::draw(frame, body, state),
    }
    frame.render_widget(footer_line(state), footer);
    if state.shows_help {
        draw_help(frame);
    }
}

/// What all sandboxes do.
fn heading_line(state: &ViewState) -> Line<'static> {
    let sum = |value: fn(&SandboxRates) -> f64| state.all().map(value).sum::<f64>();
    let observed = state.all().filter(|rates| rates.is_observed()).count();
    let mut spans = vec![
        Span::styled("policy-agent", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(
            "  {} sandboxes  {}  {} pkt/s  ",
            state.all().count(),
            bit_rate(sum(|rates| rates.bytes)),
            short_number(sum(|rates| rates.packets))
        )),
    ];
    let denied = sum(|rates| rates.denied);
    let text = format!("{} denied/s", short_number(denied));
    spans.push(Span::styled(text, if denied > 0.0 { denied_style() } else { Style::new() }));
    if observed > 0 {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(format!("{observed} OBSERVED"), observed_style()));
    }
    Line::from(spans)
}

fn footer_line(state: &ViewState) -> Line<'static> {
    if let Some(problem) = &state.problem {
        return Line::styled(problem.clone(), denied_style());
    }
    if state.edits_filter {
        return Line::from(format!("/{}▏  Enter keeps it, Esc shows all", state.filter));
    }
    if state.details.is_some() {
        return Line::from("Esc back  ↑↓ scroll  ? help  q quit");
    }
    let order = if state.reversed { ", reversed" } else { "" };
    let filter = match state.filter.as_str() {
        "" => String::new(),
        filter => format!("  filter: {filter}"),
    };
    let sort = state.sort.label();
    Line::from(format!("Enter details  s sort: {sort}{order}  / filter  ? help  q quit{filter}"))
}

fn draw_help(frame: &mut Frame<'_>) {
    let height = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX).saturating_add(2);
    let area = centred(frame.area(), 68, height);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" Keys ")), area);
}

fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height)
}

pub(super) const fn denied_style() -> Style {
    Style::new().fg(Color::Red)
}

pub(super) const fn observed_style() -> Style {
    Style::new().fg(Color::Black).bg(Color::Yellow)
}

pub(super) const fn column_style() -> Style {
    Style::new().add_modifier(Modifier::BOLD).add_modifier(Modifier::UNDERLINED)
}
