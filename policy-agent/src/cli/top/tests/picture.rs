//! Pictures of the view for the documentation, as SVG. `cargo xtask screenshots` asks for them.

use std::{env, fmt::Write as _, fs, path::Path};

use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

use super::*;

/// If it is set, pictures are written to this directory.
const DIRECTORY: &str = "SCREENSHOTS";
/// The size of the terminal.
const TERMINAL: (u16, u16) = (118, 22);
/// The size of a cell in a picture.
const CELL: (u16, u16) = (9, 19);

#[test]
fn pictures_are_drawn() {
    let mut state = busy_host();
    save("top-list", &state);
    state.open_details("coding-agent");
    state.add_flows(&flows_of_an_agent());
    save("top-sandbox", &state);
}

/// A host with many sandboxes that do different things.
fn busy_host() -> ViewState {
    let (mut state, start) = (ViewState::default(), Instant::now());
    for look in 0..30_u64 {
        let mut looked = Vec::new();
        for (place, id) in (0..).zip(["coding-agent", "crawler", "ci-runner", "notebook"]) {
            let bytes = uneven_sum(look, place) * 400_000 / (place * place + 1);
            looked.push(sample(id, bytes, uneven_sum(look, place) * place));
        }
        for number in 0..14 {
            let bytes = uneven_sum(look, number) * number * 900;
            looked.push(sample(&format!("i{number:02}f4ahtrdfdkyn2e"), bytes, 0));
        }
        looked[3]["mode"] = json!("observe");
        looked[3]["wouldDeny"]["packets"] = json!(look * 4);
        looked[6]["status"] = json!("interface missing");
        state.add_traffic(samples(&looked), start + Duration::from_secs(2 * look));
    }
    state
}

/// A counter that grows by 0 to 11 with each look.
fn uneven_sum(looks: u64, seed: u64) -> u64 {
    (0..looks).map(|look| (look * 7 + seed * 5) % 9 + (look * look + seed) % 4).sum()
}

fn flows_of_an_agent() -> Vec<Value> {
    let flow = |what: (&str, u16), decision: &str, reason: &str, count: u64| {
        json!({
            "decision": decision, "reason": reason, "protocol": "tcp", "name": what.0,
            "port": what.1, "connections": count, "lastSeen": format!("2026-11-29T10:00:{:02}Z", count % 60),
        })
    };
    let allow = |mut entry: Value, index: u64, text: &str| {
        entry["rule"] = json!({ "list": "network.allowOut", "index": index, "entry": text });
        entry
    };
    let deny = |mut entry: Value| {
        let name = entry["name"].as_str().unwrap_or_default();
        entry["allowWith"] = json!(format!("policy-agent allow coding-agent {name}"));
        entry
    };
    vec![
        allow(flow(("api.example.com", 443), "allowed", "allow_name", 1530), 0, "*.example.com"),
        allow(flow(("git.example.com", 443), "allowed", "allow_name", 212), 0, "*.example.com"),
        allow(flow(("pypi.example.org", 443), "allowed", "allow_name", 87), 1, "pypi.example.org"),
        deny(flow(("registry.example.net", 443), "denied", "name_not_allowed", 214)),
        deny(flow(("telemetry.example.net", 443), "denied", "name_not_allowed", 36)),
    ]
}

/// Draws a picture, and writes it if somebody wants it.
fn save(name: &str, state: &ViewState) {
    let (width, height) = TERMINAL;
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| screen::draw(frame, state)).expect("drawn");
    let picture = svg(terminal.backend().buffer(), width, height);
    assert!(picture.contains("coding-agent"));
    if let Some(directory) = env::var_os(DIRECTORY) {
        fs::write(Path::new(&directory).join(name).with_extension("svg"), picture)
            .expect("written");
    }
}

fn svg(buffer: &Buffer, width: u16, height: u16) -> String {
    let (w, h) = (width * CELL.0 + 20, height * CELL.1 + 20);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" font-size=\"15\" \
         font-family=\"ui-monospace, DejaVu Sans Mono, monospace\">\n\
         <rect width=\"{w}\" height=\"{h}\" rx=\"6\" fill=\"#14161a\"/>\n"
    );
    for y in 0..height {
        let mut x = 0;
        while x < width {
            let style = colours(&buffer[(x, y)]);
            let end = (x..width).find(|x| colours(&buffer[(*x, y)]) != style).unwrap_or(width);
            let text: String = (x..end).map(|x| buffer[(x, y)].symbol()).collect();
            write_run(&mut svg, (x, y), end - x, style, &text);
            x = end;
        }
    }
    svg + "</svg>\n"
}

fn write_run(
    svg: &mut String,
    (x, y): (u16, u16),
    cells: u16,
    (text_colour, ground, weight): (&str, Option<&str>, &str),
    text: &str,
) {
    let (left, top, width) = (10 + x * CELL.0, 10 + y * CELL.1, cells * CELL.0);
    if let Some(ground) = ground {
        let height = CELL.1;
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"{ground}\"/>"
        );
    }
    if text.trim().is_empty() {
        return;
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let baseline = top + 14;
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{baseline}\" textLength=\"{width}\" fill=\"{text_colour}\"{weight} \
         xml:space=\"preserve\">{text}</text>"
    );
}

/// The colours and the weight of a cell, as attributes.
fn colours(cell: &Cell) -> (&'static str, Option<&'static str>, &'static str) {
    let text = match cell.fg {
        Color::Red => "#ff8a80",
        Color::Black => "#14161a",
        _ => "#d7dae0",
    };
    let ground = (cell.bg == Color::Yellow).then_some("#ffd27a");
    let weight = if cell.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    if cell.modifier.contains(Modifier::REVERSED) {
        return ("#14161a", Some("#d7dae0"), weight);
    }
    (text, ground, weight)
}
