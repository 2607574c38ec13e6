//! An act in which a client of the agent plays: a program with the E2B SDK for Python.

#![expect(clippy::print_stdout, reason = "a demo prints")]

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Demo,
    act::Attempt,
    page::Page,
    shown::{self, Line, Tally},
};
use crate::{
    names::curl::Curl,
    probe::{
        How::Tcp,
        Seen::{self, Answered, Forbidden, Refused},
    },
    sdk::{Sdk, Service, client, program::Program},
    server::HTTPS,
    world::host::HOST_V4,
};

/// The program, in `tests/sdk/`.
const PROGRAM: &str = "tour";
/// The header that opens a private URL.
const HEADER: &str = "e2b-traffic-access-token";
/// The sandbox's name in the table: its ID is a new one every time.
const NAME: &str = "(sdk)";
/// Where the program says that the service listens.
const PORT: u16 = 8080;

const SERVER: Attempt = Attempt::Address(Tcp(HTTPS), "1.1.1.1");
const SHOP: Attempt = page("shop.example");
const EVIL: Attempt = page("evil.test");

const fn page(host: &'static str) -> Attempt {
    Attempt::Page(Page { scheme: "https", host, forged: None })
}

/// Plays and shows it.
pub(super) fn play(demo: &Demo, tally: &mut Tally) -> Result<()> {
    shown::heading("The E2B SDK for Python, unmodified, creates a sandbox with a private URL");
    print_program()?;
    let mut command = Sdk::Python.command(&demo.world.host, PROGRAM)?;
    let mut program = Program::start(&mut command)?;
    let told = program.told()?;
    let service = Service::start(&demo.slot.inside, PORT)?;
    let mut lines = vec![
        outbound(demo, &told, &SERVER, Answered)?,
        outbound(demo, &told, &SHOP, Answered)?,
        outbound(demo, &told, &EVIL, Refused)?,
        visit(demo, &told, "no token", None, Forbidden)?,
        visit(demo, &told, "a wrong token", Some("wrong"), Forbidden)?,
        visit(demo, &told, "the token", told["token"].as_str(), Answered)?,
    ];
    program.go()?;
    let told = program.told()?;
    lines.push(outbound(demo, &told, &SERVER, Refused)?);
    program.go()?;
    let told = program.told()?;
    lines.push(visit(demo, &told, "it is killed", told["token"].as_str(), gone())?);
    drop(service);
    program.finish()?;
    shown::table(&lines, tally);
    Ok(())
}

/// The program without what it has for us: its docstring, imports and `tell`.
fn print_program() -> Result<()> {
    let path = client::sources().join(PROGRAM).with_extension("py");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().skip_while(|line| !line.starts_with("sandbox"));
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with("tell")) {
        println!("   {line}");
    }
    Ok(())
}

/// From the sandbox to the internet.
fn outbound(demo: &Demo, told: &Value, attempt: &Attempt, expected: Seen) -> Result<Line> {
    let id = told["sandboxID"].as_str().context("the program tells no sandboxID")?;
    let seen = attempt.make(demo, &demo.slot)?;
    let (allowed, reason) = attempt.explain(demo, id)?;
    let agrees = allowed == (expected == Answered);
    Ok(Line { sandbox: NAME, destination: attempt.to_string(), expected, seen, reason, agrees })
}

/// From the internet to the sandbox's public URL.
fn visit(
    demo: &Demo,
    told: &Value,
    with: &'static str,
    token: Option<&str>,
    expected: Seen,
) -> Result<Line> {
    let host = told["host"].as_str().context("the program tells no host")?;
    let (inside, files) = (&demo.world.internet, demo.agent.directory());
    let mut curl = Curl::fetching(inside, files, &format!("http://{host}/"));
    if let Some(token) = token {
        curl = curl.with(&["-H", &format!("{HEADER}: {token}")]);
    }
    let fetched = curl.misled_to(HOST_V4.into()).fetch()?;
    let seen = match fetched.status {
        200 => Answered,
        403 => Forbidden,
        502 => gone(),
        _ => Seen::Failed(fetched.stderr),
    };
    let destination = format!("{:<9}{PORT}-…, {with}", "url");
    let reason = format!("the gateway answers {}", fetched.status);
    Ok(Line { sandbox: "internet", destination, expected, seen, reason, agrees: true })
}

/// Nobody is there.
fn gone() -> Seen {
    Seen::Failed("gone".to_owned())
}
