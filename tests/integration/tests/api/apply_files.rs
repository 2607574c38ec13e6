//! `apply` reads YAML, several files, and directories.

use std::{fs, path::Path};

use policy_testbed::testbed::{OrFail as _, SharedTestbed};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

#[test]
fn a_directory_and_a_file_are_applied_and_results_name_their_files() {
    let (one, other) = (TESTBED.add_sandbox(), TESTBED.add_sandbox());
    let directory = tempfile::tempdir().or_fail("a directory");
    let fleet = directory.path().join("fleet");
    fs::create_dir(&fleet).or_fail("a directory");
    let spec = one.sandbox_spec(&json!({}));
    let addresses: Vec<_> = one.addresses().iter().map(|it| format!("  - '{it}'\n")).collect();
    let yaml = format!(
        "# The first sandbox.\nsandboxID: {}\ninterface: {}\naddresses:\n{}network:\n  denyOut: [0.0.0.0/0]\n",
        one.id,
        spec["interface"].as_str().or_fail("an interface"),
        addresses.concat()
    );
    let (first, second) = (fleet.join("one.yaml"), directory.path().join("other.json"));
    fs::write(&first, &yaml).or_fail("writing");
    let network = json!({ "network": { "denyOut": ["8.8.8.8"] } });
    fs::write(&second, other.sandbox_spec(&network).to_string()).or_fail("writing");
    let text = |path: &Path| path.display().to_string();
    let words = ["apply", "-f", &text(&fleet), &text(&second), "-o", "json"];
    let applied = one.testbed.cli(&words);
    assert_eq!(applied.exit_code, 0, "{applied:?}");
    let results = applied.json();
    let file_of = |id: &str| {
        let results = results.as_array().or_fail("results");
        results.iter().find(|result| result["sandboxID"] == id).or_fail(id)["file"].clone()
    };
    assert_eq!(file_of(&one.id), text(&first));
    assert_eq!(file_of(&other.id), text(&second));
    one.assert_refused("8.8.8.9");
    other.assert_reaches("8.8.8.9");
    // Nothing is changed by what is invalid, in whichever file.
    fs::write(&first, yaml.replace("denyOut: [0.0.0.0/0]", "denyout: []")).or_fail("writing");
    let refused = one.testbed.cli(&words);
    assert_eq!(refused.exit_code, 2, "{refused:?}");
    assert!(refused.stderr.contains("one.yaml: network.denyout: unknown field"), "{refused:?}");
    one.assert_refused("8.8.8.9");
    let from_stdin = one.testbed.cli_with_stdin(&["apply", "-f", "-"], &yaml);
    assert!(from_stdin.stdout.contains("unchanged"), "{from_stdin:?}");
}
