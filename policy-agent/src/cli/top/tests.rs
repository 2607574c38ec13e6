//! What the view shows, on a terminal without a device.

mod picture;

use std::time::{Duration, Instant};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, json};

use super::{
    sandbox_rates::TrafficSample,
    screen,
    view_state::{ViewAction, ViewState},
};

fn sample(id: &str, bytes: u64, denied: u64) -> Value {
    json!({
        "sandboxID": id, "interface": "tap0", "status": "enforcing",
        "passed": { "packets": bytes / 1000, "bytes": bytes },
        "denied": { "packets": denied, "bytes": 0 },
        "wouldDeny": { "packets": 0, "bytes": 0 },
        "proxiedConnections": 3,
    })
}

fn samples(values: &[Value]) -> Vec<TrafficSample> {
    values.iter().map(|value| serde_json::from_value(value.clone()).expect("a sample")).collect()
}

/// A view after two looks, a second apart.
fn view(before: &[Value], after: &[Value]) -> ViewState {
    let (mut state, start) = (ViewState::default(), Instant::now());
    state.add_traffic(samples(before), start);
    state.add_traffic(samples(after), start + Duration::from_secs(1));
    state
}

/// Three sandboxes: one that sends, one that is denied, one that is observed.
fn three_sandboxes() -> ViewState {
    let mut observed = sample("watched", 0, 0);
    observed["mode"] = json!("observe");
    observed["wouldDeny"]["packets"] = json!(17);
    let before = [sample("busy", 0, 0), sample("refused", 0, 0), observed.clone()];
    view(&before, &[sample("busy", 125_000, 0), sample("refused", 0, 40), observed])
}

/// The lines that are shown.
fn lines(state: &ViewState, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| screen::draw(frame, state)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned()).collect()
}

fn press(state: &mut ViewState, code: KeyCode) -> Option<ViewAction> {
    state.press(KeyEvent::new(code, KeyModifiers::NONE))
}

/// The IDs that are shown, from above.
fn order(state: &ViewState) -> Vec<String> {
    state.shown().iter().map(|rates| rates.sample.id.clone()).collect()
}

#[test]
fn the_list_shows_rates_denials_and_what_is_observed() {
    let shown = lines(&three_sandboxes(), 110, 8);
    assert!(
        shown[0].contains("3 sandboxes  1.0Mb/s  125 pkt/s  40 denied/s  1 OBSERVED"),
        "{shown:?}"
    );
    assert!(shown[1].starts_with("SANDBOX"), "{shown:?}");
    assert!(shown[2].starts_with("busy") && shown[2].contains("1.0Mb/s"), "{shown:?}");
    assert!(shown[2].contains('█') && shown[2].contains("enforcing"), "{shown:?}");
    let line = |id: &str| shown.iter().find(|line| line.starts_with(id)).expect(id).clone();
    assert!(line("refused").contains("40"), "{shown:?}");
    assert!(line("watched").contains("OBSERVED 17"), "{shown:?}");
    assert!(shown[7].contains("s sort: rate"), "{shown:?}");
}

#[test]
fn a_narrow_terminal_has_what_matters() {
    let shown = lines(&three_sandboxes(), 60, 8);
    let refused = shown.iter().find(|line| line.starts_with("refused")).expect("a line");
    assert!(refused.contains("40"), "{shown:?}");
    lines(&three_sandboxes(), 3, 3); // does not panic
}

#[test]
fn sandboxes_are_sorted_and_filtered() {
    let mut state = three_sandboxes();
    assert_eq!(order(&state), ["busy", "refused", "watched"]);
    press(&mut state, KeyCode::Char('s'));
    assert_eq!(order(&state), ["refused", "busy", "watched"]);
    press(&mut state, KeyCode::Char('s'));
    assert_eq!(order(&state), ["watched", "busy", "refused"]);
    press(&mut state, KeyCode::Char('r'));
    assert_eq!(order(&state).last().map(String::as_str), Some("watched"));
    press(&mut state, KeyCode::Char('/'));
    for letter in "usy".chars() {
        press(&mut state, KeyCode::Char(letter));
    }
    press(&mut state, KeyCode::Enter);
    assert_eq!(order(&state), ["busy"]);
    press(&mut state, KeyCode::Char('/'));
    press(&mut state, KeyCode::Char('q'));
    assert!(lines(&state, 80, 6)[1].contains("No sandbox has an ID"), "q is part of the filter");
    press(&mut state, KeyCode::Esc);
    assert_eq!(order(&state).len(), 3);
}

#[test]
fn the_selection_stays_with_its_sandbox() {
    let mut state = three_sandboxes();
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Char('s'));
    assert_eq!(press(&mut state, KeyCode::Enter), Some(ViewAction::Follow("refused".to_owned())));
    assert_eq!(press(&mut state, KeyCode::Esc), Some(ViewAction::Unfollow));
    press(&mut state, KeyCode::End);
    press(&mut state, KeyCode::PageUp);
    press(&mut state, KeyCode::PageDown);
    assert_eq!(press(&mut state, KeyCode::Enter), Some(ViewAction::Follow("watched".to_owned())));
    assert_eq!(press(&mut state, KeyCode::Char('q')), Some(ViewAction::Quit));
}

#[test]
fn one_sandbox_shows_destinations_rules_and_denials() {
    let mut state = three_sandboxes();
    press(&mut state, KeyCode::Enter);
    let rule = json!({ "list": "network.allowOut", "index": 2, "entry": "*.example.com" });
    let passed = json!({
        "decision": "allowed", "reason": "allow_name", "protocol": "tcp", "name": "a.example.com",
        "port": 443, "connections": 7, "lastSeen": "2026-11-29T10:00:00Z", "rule": rule,
    });
    let denied = json!({
        "decision": "denied", "reason": "name_not_allowed", "protocol": "tcp",
        "name": "evil.test\u{1b}[2J", "port": 443, "connections": 2,
        "lastSeen": "2026-11-29T10:00:01Z", "allowWith": "policy-agent allow busy evil.test",
    });
    let mut observed = denied.clone();
    observed["decision"] = json!("would_deny");
    state.add_flows(&[passed.clone(), denied, observed]);
    let mut more = passed;
    more["connections"] = json!(9);
    state.add_flows(&[more]);
    let shown = lines(&state, 120, 24).join("\n");
    for text in [
        "busy  on tap0  enforcing",
        "9 tcp a.example.com:443",
        "9 network.allowOut[2]: *.example.com",
        "policy-agent allow busy evil.test",
        "would: name_not_allowed",
        "Denied (2)",
        r"evil.test\u{1b}[2J",
    ] {
        assert!(shown.contains(text), "{text} in\n{shown}");
    }
    state.add_traffic(Vec::new(), Instant::now());
    assert!(lines(&state, 120, 24).join("\n").contains("no such sandbox any more"));
}

#[test]
fn help_and_problems_are_shown() {
    let mut state = three_sandboxes();
    press(&mut state, KeyCode::Char('?'));
    assert!(lines(&state, 80, 24).join("\n").contains("reverse the order"));
    press(&mut state, KeyCode::Char('x'));
    assert!(!lines(&state, 80, 24).join("\n").contains("reverse the order"));
    state.report_problem("no agent answers".to_owned());
    assert!(lines(&state, 80, 24).join("\n").contains("no agent answers"));
    state.add_traffic(Vec::new(), Instant::now());
    assert!(lines(&state, 80, 24).join("\n").contains("There are no sandboxes"));
}

#[test]
fn a_counter_that_starts_again_is_no_negative_rate() {
    let state = view(&[sample("busy", 1_000_000, 0)], &[sample("busy", 1_000, 0)]);
    assert!(lines(&state, 110, 5)[2].contains("8.0kb/s"));
}

/// Asserts no limit. `cargo test -- --nocapture a_thousand` prints the time.
#[test]
fn a_thousand_sandboxes_are_drawn() {
    let all = |bytes: u64| -> Vec<Value> {
        (0..1000).map(|n| sample(&format!("s{n:04}"), bytes * n, n)).collect()
    };
    let mut state = view(&all(0), &all(1000));
    let start = Instant::now();
    let shown = lines(&state, 140, 50);
    eprintln!("drawing 1000 sandboxes takes {:?}", start.elapsed());
    assert!(shown[2].starts_with("s0999"), "{shown:?}");
    press(&mut state, KeyCode::End);
    assert!(lines(&state, 140, 50).join("\n").contains("s0000"));
}
