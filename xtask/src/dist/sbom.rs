//! The SBOM: what the agent is built from, as CycloneDX.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::PackageInput;
use crate::{host, process};

/// Writes the SBOM, and returns its path.
pub(super) fn write_sbom(input: &PackageInput) -> Result<PathBuf> {
    let mut cargo = host::cargo("metadata");
    cargo.args(["--format-version", "1", "--locked"]);
    let metadata: Value = serde_json::from_str(&process::run_output(&mut cargo)?)?;
    let components = components(&metadata).context("cargo metadata has another form")?;
    let sbom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "name": "policy-agent", "version": input.version,
        } },
        "components": components,
    });
    let path = input.output.join(format!("policy-agent-{}.cdx.json", input.version));
    let text = serde_json::to_string_pretty(&sbom)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The packages that are linked into the agent, in order.
fn components(metadata: &Value) -> Option<Vec<Value>> {
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()?
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()?
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let (agent, _) = packages.iter().find(|(_, package)| package["name"] == "policy-agent")?;
    let (mut seen, mut pending) = (BTreeSet::from([*agent]), vec![*agent]);
    while let Some(id) = pending.pop() {
        let linked = nodes.get(id)?["deps"].as_array()?.iter().filter(|dep| is_linked(dep));
        pending.extend(linked.filter_map(|dep| dep["pkg"].as_str()).filter(|id| seen.insert(id)));
    }
    seen.remove(agent);
    Some(seen.iter().filter_map(|id| packages.get(id)).map(|package| component(package)).collect())
}

/// Whether a dependency is neither for the build nor for tests.
fn is_linked(dependency: &Value) -> bool {
    let kinds = dependency["dep_kinds"].as_array();
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

fn component(package: &Value) -> Value {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let (name, version) = (text("name"), text("version"));
    json!({
        "type": "library",
        "name": name,
        "version": version,
        "purl": format!("pkg:cargo/{name}@{version}"),
        "licenses": [{ "expression": text("license") }],
    })
}
