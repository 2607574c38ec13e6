//! `run`: the agent itself.

use std::{io, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::spawn_blocking,
};
use tracing_subscriber::EnvFilter;

use super::{
    check::law,
    failure::Failure,
    lock::Lock,
    options::{Dataplane as Flags, Places},
};
use crate::{
    agent::{Agent, Kernel, Law, Ledger},
    api::{
        Api, Keys, guarded, router,
        serve::{Socket, serve},
    },
    config::Config,
    dataplane::Dataplane,
    events::{Hub, read},
    gateway::{self, Files, Gateway},
    proxy::Proxy,
    store::Store,
};

/// Run the agent
///
/// Runs the agent in the foreground. What an agent before this one left is taken over without a
/// gap. When it stops, or is killed, the kernel goes on enforcing.
#[derive(Args)]
#[command(after_help = "Examples:
  policy-agent run
  policy-agent run --config /etc/policy-agent.toml
  policy-agent --socket /tmp/a.sock run --state-dir /tmp/a --bpffs /sys/fs/bpf/a

RUST_LOG sets what is logged to stderr, for example RUST_LOG=debug.")]
pub struct Run {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    dataplane: Flags,
}

impl Run {
    pub fn run(self, socket: &Path) -> Result<(), Failure> {
        let config = self.places.load_with(Some(self.dataplane))?;
        let law = law(&config)?;
        log_to_stderr();
        let _lock = Lock::take(&config.state_dir)?;
        let runtime = Runtime::new().context("cannot start the runtime")?;
        let ended = runtime.block_on(agent(config, law, socket));
        // A change under way is finished; readers of events sleep for ever and are not waited for.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        Ok(ended?)
    }
}

async fn agent(config: Config, law: Law, path: &Path) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let signals = stop_on_signals(stop)?;
    // Whoever connects from now on is answered when everything is taken over.
    let socket = Socket::bind(path)?;
    let tcp = listen(&config).await?;
    let of_file = config.clone();
    let api = spawn_blocking(move || start(&of_file, law, stopping)).await??;
    if let Some(settings) = public(&config)? {
        Gateway::start(&settings, api.agent.table().clone(), api.gateway.clone()).await?;
    }
    tokio::spawn(api.agent.clone().watch());
    tracing::info!(socket = %path.display(), sandboxes = api.agent.table().len(), "ready");
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let stopping = api.stopping.clone();
    let keys = Keys::new(&config.api.api_keys);
    let over_tcp = guarded(api.clone(), keys);
    let served = async {
        match tcp {
            Some(tcp) => serve(tcp, over_tcp, stopping.clone()).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(socket.serve(router(api), stopping.clone()), served)?;
    signals.abort();
    tracing::info!("stopped; the kernel goes on enforcing");
    Ok(())
}

async fn listen(config: &Config) -> Result<Option<TcpListener>> {
    let Some(address) = config.api.listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    Ok(Some(listener.with_context(|| format!("api.listen: cannot listen on {address}"))?))
}

/// Takes over what is there. Blocks.
fn start(config: &Config, law: Law, stopping: watch::Receiver<bool>) -> Result<Api> {
    let dataplane = Dataplane::open(config.settings())
        .context("cannot load the kernel programs: `policy-agent doctor` says what is missing")?;
    let ring = dataplane.events()?;
    let kernel: Arc<dyn Kernel> = Arc::new(dataplane);
    let (law, ledger) = (Arc::new(law), Arc::<Ledger>::default());
    let events = Arc::new(Hub::new(kernel.clone()));
    let proxy = Arc::new(Proxy::new(config.proxy(), law.clone(), events.clone())?);
    let store = Store::open(&config.state_dir)?;
    let berths = config.berths();
    let agent = Agent::start(kernel, proxy.clone(), store, law.clone(), ledger.clone(), berths)?;
    // Not before: what happened while no agent ran is told by what was adopted.
    read(ring, events.clone(), ledger, law)?;
    let gateway = gateway::Counts::default();
    let (metrics, config) = (Arc::default(), Arc::new(config.clone()));
    Ok(Api { agent, events, proxy, gateway, metrics, config, stopping })
}

/// What the gateway is started with; `None`: it serves nothing.
fn public(config: &Config) -> Result<Option<gateway::Settings>> {
    let Some(gateway) = &config.gateway else { return Ok(None) };
    let Some(domain) = gateway.domain.clone() else { return Ok(None) };
    let files = || match (&gateway.tls_cert, &gateway.tls_key) {
        (Some(cert), Some(key)) => Ok(Files { cert: cert.clone(), key: key.clone() }),
        _ => Files::self_signed(&config.state_dir.join("gateway"), &domain),
    };
    let https = gateway.https.map(|address| files().map(|files| (address, files))).transpose()?;
    Ok(Some(gateway::Settings {
        http: gateway.http,
        https,
        max_connections_per_sandbox: usize::try_from(gateway.max_connections_per_sandbox)?,
        domain,
    }))
}

fn stop_on_signals(stop: watch::Sender<bool>) -> Result<tokio::task::JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        let _ = stop.send(true); // an error only means that it stops anyway
        std::future::pending::<()>().await;
    }))
}

/// What is logged unless `RUST_LOG` says otherwise. What libraries think of a sandbox's messages
/// would let it flood the log.
const LOGGED: &str = "info,hickory_net=error,hickory_proto=error,hickory_resolver=error,\
                      hyper=error,rustls=error,tokio_rustls=error";

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let terminal = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(terminal)
        .with_writer(io::stderr)
        .init();
}

/// Waits for what a command asks the agent.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?.block_on(work))
}
