//! Draws one sandbox: what it reaches, the rules that decide, and what it is denied.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
    widgets::{Block, Cell, Paragraph, Row, Table},
};

use super::{
    flow_details::{FlowDetails, FlowEntry},
    list_screen::status_line,
    quantities::{bit_rate, short_count, short_number, sparkline},
    sandbox_rates::SandboxRates,
    screen::{column_style, denied_style, observed_style},
};

/// Columns of the sparkline.
const SPARKLINE: usize = 60;

/// Draws a sandbox, or what is left of one that has ended.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    sandbox: Option<&SandboxRates>,
    details: &FlowDetails,
) {
    let rows = [Constraint::Length(3), Constraint::Fill(3), Constraint::Fill(2)];
    let [summary, above, below] = Layout::vertical(rows).areas(area);
    draw_summary(frame, summary, sandbox, details);
    let columns = [Constraint::Fill(3), Constraint::Fill(2)];
    let [reached, rules] = Layout::horizontal(columns).areas(above);
    draw_reached(frame, reached, details);
    draw_rules(frame, rules, details);
    draw_denials(frame, below, details);
}

fn draw_summary(
    frame: &mut Frame<'_>,
    area: Rect,
    sandbox: Option<&SandboxRates>,
    details: &FlowDetails,
) {
    let title = format!("{} ", details.sandbox);
    let Some(rates) = sandbox else {
        let text = "There is no such sandbox any more; this is what the record still has.";
        frame.render_widget(Paragraph::new(vec![Line::from(title), Line::from(text)]), area);
        return;
    };
    let sample = &rates.sample;
    let mut first = status_line(rates);
    first.spans.insert(0, format!("{title} on {}  ", sample.interface).into());
    if let Some(until) = &sample.observe_until {
        first.spans.push(format!(" until {until}").into());
    }
    let second = format!(
        "{}  {} pkt/s  {} denied/s  {} denied  {} connections through the proxy",
        bit_rate(rates.bytes),
        short_number(rates.packets),
        short_number(rates.denied),
        short_count(sample.denied.packets),
        short_count(sample.proxied_connections)
    );
    let history = sparkline(rates.history.iter().copied(), SPARKLINE);
    let lines = vec![first, Line::from(second), Line::from(history.trim_start().to_owned())];
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_reached(frame: &mut Frame<'_>, area: Rect, details: &FlowDetails) {
    let room = usize::from(area.height.saturating_sub(3));
    let entries = details.newest(true);
    let shown = entries.iter().skip(details.scrolled).take(room);
    let rows = shown.map(|entry| {
        let count = Line::from(short_count(entry.count)).right_aligned();
        Row::new([Cell::from(count), entry.what.clone().into(), entry.reason.clone().into()])
    });
    let widths = [Constraint::Length(7), Constraint::Fill(3), Constraint::Length(14)];
    let title = format!(" Reached ({}) ", entries.len());
    let table = Table::new(rows, widths)
        .header(Row::new(["COUNT", "WHAT", "BY"]).style(column_style()))
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn draw_rules(frame: &mut Frame<'_>, area: Rect, details: &FlowDetails) {
    let hits = details.rule_hits();
    let rows = hits.iter().map(|(rule, count)| {
        let count = Line::from(short_count(*count)).right_aligned();
        Row::new([Cell::from(count), rule.clone().into()])
    });
    let table = Table::new(rows, [Constraint::Length(7), Constraint::Fill(1)])
        .header(Row::new(["HITS", "RULE"]).style(column_style()))
        .block(Block::bordered().title(" Rules "));
    frame.render_widget(table, area);
}

fn draw_denials(frame: &mut Frame<'_>, area: Rect, details: &FlowDetails) {
    let entries = details.newest(false);
    let room = usize::from(area.height.saturating_sub(3));
    let rows = entries.iter().take(room).map(|entry| denial_row(entry));
    let widths =
        [Constraint::Length(7), Constraint::Fill(2), Constraint::Length(24), Constraint::Fill(3)];
    let table = Table::new(rows, widths)
        .header(Row::new(["COUNT", "WHAT", "REASON", "ALLOW WITH"]).style(column_style()))
        .block(Block::bordered().title(format!(" Denied ({}) ", entries.len())));
    frame.render_widget(table, area);
}

fn denial_row(entry: &FlowEntry) -> Row<'static> {
    let is_observed = entry.decision == "would_deny";
    let style = if is_observed { observed_style() } else { denied_style() };
    let reason = match is_observed {
        true => format!("would: {}", entry.reason),
        false => entry.reason.clone(),
    };
    Row::new([
        Cell::from(Line::from(short_count(entry.count)).right_aligned()),
        entry.what.clone().into(),
        Cell::from(reason).style(style),
        entry.allow_with.clone().unwrap_or_default().into(),
    ])
}
