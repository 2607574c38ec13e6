//! The API of container engines, which is Docker's for both, over their Unix sockets.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    container_event::{ContainerEvent, events_path},
    inspection::ContainerInspection,
};
use crate::{
    agent::AgentError,
    net::unix_http::{ResponseLines, UnixHttpError, send_to_socket, split_lines},
    policy::{
        ContainerEndpoint, ContainerEngine, ContainerReference, SandboxSpec, ValidationError,
    },
};

/// The time in which an engine has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of bytes of an answer, or of a line of events.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// The engines of this host.
#[derive(Clone, Debug)]
pub(crate) struct ContainerEngines {
    /// Docker's socket.
    pub(crate) docker: PathBuf,
    /// The socket of Podman's API service.
    pub(crate) podman: PathBuf,
}

impl ContainerEngines {
    /// Finds the interfaces and addresses of those sandboxes that name a container.
    ///
    /// # Errors
    /// A container does not run, or has no interface that a sandbox could have.
    pub(crate) async fn locate_all(&self, specs: &mut [SandboxSpec]) -> Result<(), AgentError> {
        for spec in specs {
            let Some(container) = spec.container.clone() else { continue };
            let located = self.locate(&container).await.and_then(|located| {
                let endpoint = located.context("there is no such container")?;
                endpoint.context("it does not run; start it first")
            });
            let endpoint = located.map_err(|problem| {
                let problem = format!("{problem:#}");
                let entry = container.to_string();
                let invalid = ValidationError::about_entry("container", entry, problem);
                AgentError::for_sandbox(&spec.sandbox_id, invalid)
            })?;
            spec.move_to(Some(endpoint));
        }
        Ok(())
    }

    /// Where a container is, which is nowhere if it does not run. `None` if there is none.
    ///
    /// # Errors
    /// The engine does not answer, or the container has no interface that a sandbox could have.
    pub(super) async fn locate(
        &self,
        container: &ContainerReference,
    ) -> Result<Option<Option<ContainerEndpoint>>> {
        let inspect = || self.inspect(container.engine, &container.name);
        let Some(inspection) = inspect().await? else { return Ok(None) };
        let mut namespace = inspection.open_namespace();
        if namespace.is_none() {
            namespace = inspection.open_process_namespace()?;
            // The process may have ended before its file was opened.
            let again = if namespace.is_some() { inspect().await? } else { None };
            let is_other = again.is_none_or(|again| !again.is_same_run(&inspection));
            ensure!(namespace.is_none() || !is_other, "it is being restarted; try again");
        }
        let found = spawn_blocking(move || inspection.endpoint(namespace.as_ref())).await?;
        found.map(Some)
    }

    /// What the engine says about a container. `None` if there is none.
    pub(super) async fn inspect(
        &self,
        engine: ContainerEngine,
        name: &str,
    ) -> Result<Option<ContainerInspection>> {
        let answer = timeout(ANSWER_TIMEOUT, self.inspect_without_limit(engine, name)).await;
        answer.with_context(|| format!("{} does not answer in time", engine.prefix()))?
    }

    async fn inspect_without_limit(
        &self,
        engine: ContainerEngine,
        name: &str,
    ) -> Result<Option<ContainerInspection>> {
        let response = self.get(engine, &format!("/containers/{name}/json")).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        ensure!(status.is_success(), "{} answers {status}", engine.prefix());
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| anyhow!(error))?.to_bytes();
        let read = serde_json::from_slice(&body);
        Ok(Some(read.with_context(|| format!("{} answers nonsense", engine.prefix()))?))
    }

    /// Streams the events of an engine from now on.
    pub(super) async fn events(&self, engine: ContainerEngine) -> Result<EventStream> {
        let response = self.get(engine, &events_path(engine)).await?;
        let status = response.status();
        ensure!(status.is_success(), "{} answers {status} for events", engine.prefix());
        let lines = ResponseLines::new(response.into_body(), ANSWER_LIMIT);
        Ok(EventStream { lines, arrived: VecDeque::new() })
    }

    async fn get(&self, engine: ContainerEngine, path: &str) -> Result<Response<Incoming>> {
        let socket = match engine {
            ContainerEngine::Docker => &self.docker,
            ContainerEngine::Podman => &self.podman,
        };
        let request = Request::get(path).header("host", engine.prefix());
        let sent = send_to_socket(socket, request.body(Full::<Bytes>::default())?).await;
        sent.map_err(|error| match error {
            UnixHttpError::Connect(cause) => {
                let hint = match engine {
                    ContainerEngine::Docker => "is Docker running?",
                    ContainerEngine::Podman => "`systemctl start podman.socket` starts its API",
                };
                anyhow!("cannot ask {} on {}: {cause}; {hint}", engine.prefix(), socket.display())
            }
            other => anyhow!(other).context(format!("{} breaks off", engine.prefix())),
        })
    }
}

/// The events of an engine.
pub(super) struct EventStream {
    lines: ResponseLines,
    /// Lines that have arrived.
    arrived: VecDeque<Vec<u8>>,
}

impl EventStream {
    /// Waits for the next event.
    ///
    /// # Errors
    /// The engine has ended the stream, or sends something else.
    pub(super) async fn next(&mut self) -> Result<ContainerEvent> {
        loop {
            if let Some(line) = self.arrived.pop_front() {
                return serde_json::from_slice(&line).context("an event that cannot be read");
            }
            let lines = self.lines.next().await?.context("it has ended")?;
            let lines = split_lines(&lines).filter(|line| !line.trim_ascii().is_empty());
            self.arrived.extend(lines.map(<[u8]>::to_vec));
        }
    }
}
