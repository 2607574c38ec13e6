//! The API server on the Unix socket and, if configured, on TCP. Timeouts close the connections of
//! slow clients, so that none holds a descriptor forever. Over TCP, the number of clients is
//! limited as well.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use axum::{Router, serve::Listener};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use super::{
    client_limiter::{ClientLimiter, ClientPermit},
    deadline_body::DeadlineBody,
};

/// How long pending requests may take after the agent begins to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How long a client may take to send a request header, idle time before it included, and then the
/// body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The agent's Unix socket, accessible to the agent's user and group only. Dropping this value
/// removes the socket.
pub struct ApiSocket {
    listener: Option<UnixListener>,
    path: PathBuf,
}

impl ApiSocket {
    /// Creates the socket. Replaces a stale one.
    ///
    /// # Errors
    /// Another agent listens on the path, the path is not a socket, or the directory is not
    /// writable.
    pub fn bind(path: &Path) -> Result<Self> {
        if let Some(directory) = path.parent() {
            let created = fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
            created.with_context(|| {
                format!(
                    "cannot make {}: be root, or give --socket another place",
                    directory.display()
                )
            })?;
        }
        ensure_path_is_free(path)?;
        // Created under a temporary name and renamed, so that no client connects before the mode is
        // set.
        let temporary_path = path.with_extension(format!("new{}", std::process::id()));
        let _ = fs::remove_file(&temporary_path);
        let listener = UnixListener::bind(&temporary_path)
            .with_context(|| format!("cannot make the socket {}", temporary_path.display()))?;
        fs::set_permissions(&temporary_path, fs::Permissions::from_mode(0o660))?;
        fs::rename(&temporary_path, path)
            .with_context(|| format!("cannot make the socket {}", path.display()))?;
        Ok(Self { listener: Some(listener), path: path.to_owned() })
    }

    /// Serves clients until the agent stops.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn serve(mut self, router: Router, stopping: watch::Receiver<bool>) -> Result<()> {
        match self.listener.take() {
            Some(listener) => {
                serve_listener(listener, router, stopping, |_| ClientPermit::UNLIMITED).await
            }
            None => Ok(()),
        }
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // the next start replaces a stale socket
    }
}

/// Serves a limited number of clients over TCP until the agent stops.
///
/// # Errors
/// None so far: the listener retries a failed accept.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    stopping: watch::Receiver<bool>,
) -> Result<()> {
    let limiter = ClientLimiter::default();
    serve_listener(listener, router, stopping, |address| limiter.admit(address.ip())).await
}

/// Serves until the agent stops, then gives pending requests [`SHUTDOWN_GRACE`].
async fn serve_listener<L: Listener>(
    mut listener: L,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    admit: impl Fn(&L::Addr) -> ClientPermit,
) -> Result<()> {
    let graceful = GracefulShutdown::new();
    loop {
        let (client, permit) = tokio::select! {
            (client, address) = listener.accept() => (client, admit(&address)),
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let request_permit = permit.clone();
        let service_with_deadline = move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(request_permit.clone());
            service.call(request.map(|body| DeadlineBody::new(body, REQUEST_TIMEOUT)))
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
        let connection =
            http.serve_connection(TokioIo::new(client), service_fn(service_with_deadline));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            tokio::select! {
                // Errors are the client's fault: it disconnected or did not speak HTTP.
                _ = connection => {}
                () = permit.evicted() => {}
            }
        });
    }
    drop(listener);
    // Requests that take longer are cut off.
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, graceful.shutdown()).await;
    Ok(())
}

/// Fails unless the path is free or holds a stale socket.
fn ensure_path_is_free(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot see {}", path.display())),
        Ok(found) if !found.file_type().is_socket() => {
            bail!("{} is there and is no socket: give --socket another path", path.display())
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!(
            "another agent listens on {}: stop it, or give --socket another path",
            path.display()
        ),
        Err(_) => Ok(()), // a stale socket, which the rename replaces
    }
}
