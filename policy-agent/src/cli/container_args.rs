//! The options `--docker` and `--podman` of `apply`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Map, Value};

use super::{
    cli_failure::CliFailure,
    sandbox_file::{FileSandbox, read_sandbox_fields},
};
use crate::policy::{ContainerEngine, ContainerReference, parse_json};

/// The field of the ID in a file.
const ID_FIELD: &str = "sandboxID";

/// A container, in place of `container` in a file.
#[derive(Args)]
pub(super) struct ContainerArgs {
    /// Apply the file to this container of Docker: the agent finds its interface and addresses, and
    /// follows restarts; the file needs `network` at most, and the ID is the container's name
    #[arg(long, value_name = "NAME", conflicts_with = "podman")]
    docker: Option<String>,
    /// The same for a container of Podman
    #[arg(long, value_name = "NAME")]
    podman: Option<String>,
}

impl ContainerArgs {
    /// The container, if one is given.
    pub(super) fn reference(&self) -> Result<Option<ContainerReference>, CliFailure> {
        let given =
            [(ContainerEngine::Docker, &self.docker), (ContainerEngine::Podman, &self.podman)];
        let given = given.into_iter().find_map(|(engine, name)| Some((engine, name.as_ref()?)));
        let parse = |(engine, name): (ContainerEngine, &String)| {
            let reference = format!("{}:{name}", engine.prefix()).parse();
            reference.map_err(|invalid| CliFailure::BadInput(anyhow!("{invalid}")))
        };
        given.map(parse).transpose()
    }
}

/// A container as a sandbox, with the keys of a file. Without a file, only the floor is enforced.
pub(super) fn container_sandbox(
    container: &ContainerReference,
    paths: &[PathBuf],
) -> Result<FileSandbox, CliFailure> {
    let (file, mut fields) = match paths {
        [] => (container.to_string(), Map::new()),
        [path] => read_sandbox_fields(path)?,
        [_, second, ..] => {
            let second = second.display();
            return Err(CliFailure::BadInput(anyhow!("{second}: a container has one file")));
        }
    };
    fields.insert("container".to_owned(), Value::from(container.to_string()));
    fields.entry(ID_FIELD).or_insert_with(|| Value::from(container.name.to_lowercase()));
    let spec = parse_json(Value::Object(fields).to_string().as_bytes());
    let spec = spec.map_err(|invalid| CliFailure::BadInput(anyhow!("{file}: {invalid}")))?;
    Ok(FileSandbox { file, spec })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(name: &str, file: &str) -> Result<FileSandbox, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("policy.json");
        std::fs::write(&path, file).expect("written");
        let container = format!("docker:{name}").parse().expect("a reference");
        container_sandbox(&container, &[path]).map_err(|failure| failure.into_error().to_string())
    }

    #[test]
    fn the_name_of_the_container_is_the_id_unless_the_file_has_one() {
        let plain = sandbox("Web", r#"{"network":{"denyOut":["0.0.0.0/0"]}}"#).expect("a sandbox");
        assert_eq!(plain.spec.sandbox_id.as_str(), "web");
        assert_eq!(plain.spec.container.expect("a container").to_string(), "docker:Web");
        let named = sandbox("my_web", r#"{"sandboxID":"web1"}"#).expect("a sandbox");
        assert_eq!(named.spec.sandbox_id.as_str(), "web1");
        let refused = sandbox("my_web", "{}").map(|it| it.file).expect_err("no ID");
        assert!(refused.contains("sandboxID: \"my_web\": an ID has"), "{refused}");
    }
}
