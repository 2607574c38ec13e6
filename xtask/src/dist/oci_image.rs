//! The OCI image layout: an image with the agent alone, which tools like skopeo and podman read.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{PackageInput, files, recreate_directory, tarball};
use crate::{host, process};

/// A file of the layout.
struct Blob {
    digest: String,
    size: u64,
}

/// Writes the layout to `policy-agent-<version>.oci`.
pub(super) fn write_layout(input: &PackageInput) -> Result<()> {
    let layout = input.output.join(format!("policy-agent-{}.oci", input.version));
    let root = input.output.join("work/image");
    recreate_directory(&layout)?;
    files::write_file(&root, "usr/bin/policy-agent", 0o755, &fs::read(&input.binary)?)?;
    let tar = input.output.join("work/layer.tar");
    process::run_output(tarball::reproducible_tar(input, &root).arg("-cf").arg(&tar).arg("usr"))?;
    let content = sha256(&tar)?;
    process::run_output(host::command("gzip").arg("-n").arg(&tar))?;
    let layer = add_blob(&layout, &tar.with_extension("tar.gz"))?;
    let config = add_json(&layout, &image_config(&content))?;
    let descriptor = |kind: &str, blob: &Blob| json!({ "mediaType": kind, "digest": blob.digest, "size": blob.size });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    });
    let manifest = add_json(&layout, &manifest)?;
    let mut manifest = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": input.version });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    process::report(&layout.display().to_string());
    Ok(())
}

fn image_config(layer: &str) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": ["/usr/bin/policy-agent"], "Cmd": ["run"] },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    })
}

fn add_json(layout: &Path, value: &Value) -> Result<Blob> {
    let file = layout.join("new.json");
    fs::write(&file, value.to_string()).context("cannot write the image")?;
    add_blob(layout, &file)
}

/// Moves a file into the layout.
fn add_blob(layout: &Path, file: &Path) -> Result<Blob> {
    let (digest, size) = (sha256(file)?, fs::metadata(file)?.len());
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    fs::rename(file, blobs.join(digest.trim_start_matches("sha256:")))?;
    Ok(Blob { digest, size })
}

fn sha256(file: &Path) -> Result<String> {
    let line = process::run_output(host::command("sha256sum").arg(file))?;
    Ok(format!("sha256:{}", line.split_whitespace().next().unwrap_or_default()))
}
