//! The step of a secret: the sandbox uses it and cannot read it.

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    output::{self, DemoSummary, ResultRow},
    setup::DemoSetup,
};
use policy_testbed::{
    named_internet::curl::{CurlCommand, CurlResult},
    network::Sandbox,
    probe::ProbeResult,
};

/// A name and its address. Its server takes tokens, and does not tell clients what it got.
pub(crate) const API_SITE: (&str, &str) = ("api.example", "198.51.100.24");
/// The secret's name and value.
const SECRET: (&str, &str) = ("api-token", "9f2c51e0a7d4");
/// Any address: the agent itself answers for `policy.internal`.
const ANY_ADDRESS: [u8; 4] = [192, 0, 2, 1];

/// Runs the step and prints its results.
pub(crate) fn run(demo: &mut DemoSetup, tally: &mut DemoSummary) -> Result<()> {
    output::print_heading("A secret that the sandbox uses and cannot read");
    let (name, value) = SECRET;
    let stored = demo.agent.cli_with_stdin(&["secrets", "set", name], value)?;
    ensure!(stored.exit_code == 0, "`policy-agent secrets` failed: {}", stored.stderr);
    output::print_line(&format!("$ policy-agent secrets set {name} < token.txt"));
    let header = json!({ "Authorization": format!("Bearer ${{e2b.secrets.{name}}}") });
    let network = json!({
        "denyOut": ["0.0.0.0/0"],
        "allowOut": [API_SITE.0],
        "rules": { API_SITE.0: [{ "transform": { "headers": header } }] },
    });
    demo.apply("gamma", &json!({ "network": network }))?;
    let fetched = call_api(demo, demo.sandbox_by_id("gamma"))?;
    let received = demo.internet_process.last_request()?;
    output::print_line(&format!("the server got: {received}"));
    output::print_table(&result_rows(&fetched, &received), tally);
    Ok(())
}

/// Sends a request from a sandbox that trusts its own authority.
fn call_api(demo: &DemoSetup, sandbox: &Sandbox) -> Result<CurlResult> {
    let authority = fetch_authority(demo, sandbox)?;
    let (name, address) = API_SITE;
    let url = format!("https://{name}/orders");
    let curl = CurlCommand::new(&sandbox.namespace, demo.agent.directory(), &url);
    let curl = curl.with_hosts_line(&format!("{address} {name}"));
    curl.with_arguments(&["-v", "--cacert", &authority.to_string_lossy()]).try_run()
}

/// Fetches the authority as a sandbox does.
fn fetch_authority(demo: &DemoSetup, sandbox: &Sandbox) -> Result<PathBuf> {
    let files = demo.agent.directory();
    let curl = CurlCommand::new(&sandbox.namespace, files, "http://policy.internal/ca.pem");
    let fetched = curl.resolving_to(ANY_ADDRESS.into()).try_run()?;
    ensure!(fetched.status == 200, "there is no authority: {}", fetched.stderr);
    let path = files.join("authority-of-gamma.pem");
    fs::write(&path, fetched.body)?;
    Ok(path)
}

fn result_rows(fetched: &CurlResult, received: &str) -> [ResultRow; 3] {
    let word = |word: &str| ProbeResult::Failed(word.to_owned());
    let status = match fetched.status {
        200 => ProbeResult::Answered,
        _ => ProbeResult::Failed(fetched.stderr.clone()),
    };
    let presence = |text: &str| match text.contains(SECRET.1) {
        true => word("present"),
        false => word("absent"),
    };
    let inside = presence(&format!("{}{}", fetched.stderr, fetched.text()));
    let row = |sandbox, what: &str, expected, result, reason: &str| ResultRow {
        sandbox,
        destination: format!("{:<9}{what}", "https"),
        expected,
        result,
        reason: reason.to_owned(),
        explain_agrees: true,
    };
    [
        row(
            "gamma",
            API_SITE.0,
            ProbeResult::Answered,
            status,
            "7  allow_name  the agent sets the header",
        ),
        row(
            "server",
            "the secret",
            word("present"),
            presence(received),
            "in the request that the server got",
        ),
        row("gamma", "the secret", word("absent"), inside, "in all that curl -v saw"),
    ]
}
