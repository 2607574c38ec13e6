//! The step of an agent client: a program that uses the E2B SDK for Python.

#![expect(clippy::print_stdout, reason = "a demo prints")]

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    output::{self, DemoSummary, ResultRow},
    page_fetch::PageFetch,
    setup::DemoSetup,
    step::DemoAttempt,
};
use policy_testbed::{
    named_internet::curl::CurlCommand,
    network::host_router::HOST_UPLINK_V4,
    probe::{
        ProbeKind::Tcp,
        ProbeResult::{self, Answered, Forbidden, Refused},
    },
    public_url::TOKEN_NAME,
    sdk::{E2bSdk, HeaderEchoService, e2b_sdk, sdk_program::SdkProgram},
    test_servers::HTTPS_PORT,
};

/// The program, in `tests/sdk/`.
const SDK_PROGRAM: &str = "tour";
/// The sandbox's name in the table, since its ID is new in every run.
const SANDBOX_LABEL: &str = "(sdk)";
/// The port of the service in the program.
const SERVICE_PORT: u16 = 8080;

const SERVER_ATTEMPT: DemoAttempt = DemoAttempt::Address(Tcp(HTTPS_PORT), "1.1.1.1");
const SHOP_ATTEMPT: DemoAttempt = page_attempt("shop.example");
const EVIL_ATTEMPT: DemoAttempt = page_attempt("evil.test");

const fn page_attempt(host: &'static str) -> DemoAttempt {
    DemoAttempt::Page(PageFetch { scheme: "https", host, forged_address: None })
}

/// Runs the step and prints its results.
pub(crate) fn run(demo: &DemoSetup, tally: &mut DemoSummary) -> Result<()> {
    output::print_heading(
        "The E2B SDK for Python, unmodified, creates a sandbox with a private URL",
    );
    print_program()?;
    let mut command = E2bSdk::Python.command(&demo.network.host, SDK_PROGRAM)?;
    let mut program = SdkProgram::start(&mut command)?;
    let told = program.next_report()?;
    let service = HeaderEchoService::start(&demo.pooled_sandbox.namespace, SERVICE_PORT)?;
    let mut lines = vec![
        outbound_row(demo, &told, &SERVER_ATTEMPT, Answered)?,
        outbound_row(demo, &told, &SHOP_ATTEMPT, Answered)?,
        outbound_row(demo, &told, &EVIL_ATTEMPT, Refused)?,
        public_url_row(demo, &told, "no token", None, Forbidden)?,
        public_url_row(demo, &told, "a wrong token", Some("wrong"), Forbidden)?,
        public_url_row(demo, &told, "the token", told["token"].as_str(), Answered)?,
    ];
    program.resume()?;
    let told = program.next_report()?;
    lines.push(outbound_row(demo, &told, &SERVER_ATTEMPT, Refused)?);
    program.resume()?;
    let told = program.next_report()?;
    lines.push(public_url_row(demo, &told, "it is killed", told["token"].as_str(), gone_result())?);
    drop(service);
    program.finish()?;
    output::print_table(&lines, tally);
    Ok(())
}

/// Prints the program without the parts for the demo: docstring, imports and calls of `tell`.
fn print_program() -> Result<()> {
    let path = e2b_sdk::programs_directory().join(SDK_PROGRAM).with_extension("py");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().skip_while(|line| !line.starts_with("sandbox"));
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with("tell")) {
        println!("   {line}");
    }
    Ok(())
}

/// From the sandbox to the internet.
fn outbound_row(
    demo: &DemoSetup,
    told: &Value,
    attempt: &DemoAttempt,
    expected: ProbeResult,
) -> Result<ResultRow> {
    let id = told["sandboxID"].as_str().context("the program tells no sandboxID")?;
    let seen = attempt.run_from(demo, &demo.pooled_sandbox)?;
    let (allowed, reason) = attempt.explain(demo, id)?;
    let agrees = allowed == (expected == Answered);
    Ok(ResultRow {
        sandbox: SANDBOX_LABEL,
        destination: attempt.to_string(),
        expected,
        result: seen,
        reason,
        explain_agrees: agrees,
    })
}

/// From the internet to the sandbox's public URL.
fn public_url_row(
    demo: &DemoSetup,
    told: &Value,
    with: &'static str,
    token: Option<&str>,
    expected: ProbeResult,
) -> Result<ResultRow> {
    let host = told["host"].as_str().context("the program tells no host")?;
    let (inside, files) = (&demo.network.internet, demo.agent.directory());
    let mut curl = CurlCommand::new(inside, files, &format!("http://{host}/"));
    if let Some(token) = token {
        curl = curl.with_arguments(&["-H", &format!("{TOKEN_NAME}: {token}")]);
    }
    let fetched = curl.resolving_to(HOST_UPLINK_V4.into()).try_run()?;
    let seen = match fetched.status {
        200 => Answered,
        403 => Forbidden,
        502 => gone_result(),
        _ => ProbeResult::Failed(fetched.stderr),
    };
    let destination = format!("{:<9}{SERVICE_PORT}-…, {with}", "url");
    let reason = format!("the gateway answers {}", fetched.status);
    Ok(ResultRow {
        sandbox: "internet",
        destination,
        expected,
        result: seen,
        reason,
        explain_agrees: true,
    })
}

/// The result for a sandbox that no longer exists.
fn gone_result() -> ProbeResult {
    ProbeResult::Failed("gone".to_owned())
}
