//! Listening: the Unix socket, and TCP if the operator wants it. A client that takes its time is sent
//! away, so that it holds no descriptor for ever; over TCP, so are clients that are too many.

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

/// How long requests under way may take when the agent is told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How long a client may take to ask: its header, the wait before it included, and then its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The agent's Unix socket, which only its user and group may open. Goes with this value.
pub struct ApiSocket {
    listener: Option<UnixListener>,
    path: PathBuf,
}

impl ApiSocket {
    /// Makes the socket, in place of one that nobody listens to any more.
    ///
    /// # Errors
    /// Somebody listens there, something else is there, or the directory cannot be written.
    pub fn bind(path: &Path) -> Result<Self> {
        if let Some(directory) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.with_context(|| {
                format!(
                    "cannot make {}: be root, or give --socket another place",
                    directory.display()
                )
            })?;
        }
        ensure_path_is_free(path)?;
        // Made under another name and then moved: nobody can open it before its mode is set.
        let new = path.with_extension(format!("new{}", std::process::id()));
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new)
            .with_context(|| format!("cannot make the socket {}", new.display()))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o660))?;
        fs::rename(&new, path)
            .with_context(|| format!("cannot make the socket {}", path.display()))?;
        Ok(Self { listener: Some(listener), path: path.to_owned() })
    }

    /// Serves whoever may open it, until the agent is told to stop.
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
        let _ = fs::remove_file(&self.path); // what is left is replaced at the next start
    }
}

/// Serves clients over TCP, of whom there may be so many, until the agent is told to stop.
///
/// # Errors
/// None so far: a listener that cannot accept tries again.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    stopping: watch::Receiver<bool>,
) -> Result<()> {
    let limiter = ClientLimiter::default();
    serve_listener(listener, router, stopping, |address| limiter.admit(address.ip())).await
}

/// Serves until the agent is told to stop; then requests under way have a moment left.
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
                // An error is the client's: it went, or it did not speak HTTP.
                _ = connection => {}
                () = permit.evicted() => {}
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, graceful.shutdown()).await; // whoever needs longer is cut off
    Ok(())
}

/// Makes sure that the path is free to be taken.
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
        Err(_) => Ok(()), // nobody does: renaming replaces it
    }
}
