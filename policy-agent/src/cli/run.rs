//! `run`: the agent itself.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task::spawn_blocking};

use super::{
    check::law,
    failure::Failure,
    lock::Lock,
    options::{Dataplane as Flags, Places},
    signals,
};
use crate::{
    agent::{Agent, Kernel, Law, Ledger},
    api::{
        Api, Keys, guarded, metrics_only, router,
        serve::{Socket, serve_tcp},
    },
    config::Config,
    dataplane::Dataplane,
    events::{Hub, read},
    gateway::{self, Files, Gateway},
    logging::Log,
    metrics::Metrics,
    proxy::Proxy,
    runtimes::Runtimes,
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
        let log = Log::to_stderr()?;
        config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let _lock = Lock::take(&config.state_dir)?;
        let runtimes = Runtimes::start()?;
        let traffic = runtimes.traffic.handle().clone();
        let ended = runtimes.control.block_on(agent(config, law, socket, log.clone(), traffic));
        runtimes.stop();
        log.flush();
        Ok(ended?)
    }
}

/// The control plane, on the current runtime; what sandboxes and their visitors keep busy goes to
/// `traffic`.
async fn agent(config: Config, law: Law, path: &Path, log: Log, traffic: Handle) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let signals = signals::heed(stop)?;
    // Whoever connects from now on is answered when everything is taken over.
    let socket = Socket::bind(path)?;
    let listeners = Listeners::bind(&config).await?;
    let (of_file, metrics, proxied) = (config.clone(), Metrics::new(log), traffic.clone());
    let start = move || {
        let _traffic = proxied.enter();
        start(&of_file, law, metrics, stopping)
    };
    let api = spawn_blocking(start).await??;
    if let Some(settings) = public(&config)? {
        let (table, counts) = (api.agent.table().clone(), api.gateway.clone());
        let start = async move { Gateway::start(&settings, table, counts).await };
        traffic.spawn(start).await??;
    }
    tokio::spawn(api.agent.clone().watch());
    tracing::info!(socket = %path.display(), sandboxes = api.agent.table().len(), "ready");
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let stopping = api.stopping.clone();
    tokio::try_join!(socket.serve(router(api.clone()), stopping), listeners.serve(&config, api))?;
    signals.abort();
    tracing::info!("stopped; the kernel goes on enforcing");
    Ok(())
}

/// What is served over TCP, if the operator wants it.
struct Listeners {
    api: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self> {
        let api = listen("api.listen", config.api.listen).await?;
        let metrics = listen("metrics.listen", config.metrics.listen).await?;
        Ok(Self { api, metrics })
    }

    /// Serves until the agent is told to stop.
    async fn serve(self, config: &Config, api: Api) -> Result<()> {
        let whole = guarded(api.clone(), Keys::new(&config.api.api_keys));
        let metrics = metrics_only(api.clone(), config.metrics.token.as_deref());
        let stopping = &api.stopping;
        let serve = async |listener: Option<TcpListener>, router| match listener {
            Some(listener) => serve_tcp(listener, router, stopping.clone()).await,
            None => Ok(()),
        };
        tokio::try_join!(serve(self.api, whole), serve(self.metrics, metrics))?;
        Ok(())
    }
}

async fn listen(key: &str, address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    Ok(Some(listener.with_context(|| format!("{key}: cannot listen on {address}"))?))
}

/// Takes over what is there. Blocks. The egress proxy serves on the current runtime.
fn start(
    config: &Config,
    law: Law,
    metrics: Metrics,
    stopping: watch::Receiver<bool>,
) -> Result<Api> {
    let dataplane = Dataplane::open(config.settings())
        .context("cannot load the kernel programs: `policy-agent doctor` says what is missing")?;
    let ring = dataplane.events()?;
    let kernel: Arc<dyn Kernel> = Arc::new(dataplane);
    let (law, ledger) = (Arc::new(law), Arc::<Ledger>::default());
    let events = Arc::new(Hub::new(kernel.clone()));
    let proxy = Arc::new(Proxy::new(config.proxy(), law.clone(), events.clone())?);
    let store = Store::open(&config.state_dir)?;
    let berths = config.berths();
    let agent = Agent::start(kernel, proxy.clone(), store, law, ledger.clone(), berths)?;
    // Not before: what happened while no agent ran is told by what was adopted.
    read(ring, events.clone(), ledger)?;
    let gateway = gateway::Counts::default();
    let (metrics, config) = (Arc::new(metrics), Arc::new(config.clone()));
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
        envd_port: gateway.envd_port,
        trusted_proxies: gateway.trusted_proxies()?,
        proxy_protocol: gateway.proxy_protocol,
        domain,
    }))
}

/// Waits for what a command asks the agent.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?.block_on(work))
}
