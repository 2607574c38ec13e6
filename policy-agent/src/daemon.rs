//! The running agent: assembles its parts, serves until it is stopped, and stops them.

mod reload;
mod signals;
mod state_dir_lock;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};

use self::reload::{ConfigReloader, ListenerKeys};
pub(crate) use self::{
    reload::{ConfigLoader, LoadedConfig},
    state_dir_lock::StateDirLock,
};
use crate::{
    agent::{
        Agent, CurrentPlatformPolicy, DataplaneControl, EventAttribution, PlatformPolicy,
        SandboxStore,
    },
    api::{
        ApiState, metrics_router, router, router_with_keys,
        server::{ApiSocket, serve_tcp},
    },
    config::{AgentConfig, GatewayConfig},
    containers::ContainerFollower,
    dataplane::Dataplane,
    envd::CaDelivery,
    events::{EventBuffer, FlowRecord, RecordFile, RecordWriter, spawn_reader},
    gateway::{self, CertificateFiles, Gateway},
    logging::LogSink,
    metrics::MetricsExporter,
    proxy::TransparentProxy,
    runtimes::AgentRuntimes,
    secrets::{SecretStore, SecretWatcher},
    traffic_workers::TrafficWorkers,
};

/// Runs the agent until a signal stops it.
///
/// # Errors
/// Another agent uses the state directory, or the agent cannot start or serve.
pub(crate) fn run(
    loaded: LoadedConfig,
    load: ConfigLoader,
    socket: &Path,
    log: &LogSink,
) -> Result<()> {
    let _lock = StateDirLock::acquire(&loaded.config.state_dir)?;
    let runtimes = AgentRuntimes::start()?;
    let traffic = runtimes.traffic.clone();
    let agent = run_agent(loaded, load, socket, log.clone(), traffic);
    let result = runtimes.control.block_on(agent);
    runtimes.stop();
    log.flush();
    result
}

/// Runs the control plane on the current runtime. The traffic of sandboxes and of the gateway's
/// clients is served by the workers `traffic`.
async fn run_agent(
    loaded: LoadedConfig,
    load: ConfigLoader,
    path: &Path,
    log: LogSink,
    traffic: TrafficWorkers,
) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let (signals, hangups) = (signals::watch_signals(stop)?, signals::watch_hangups()?);
    // Clients that connect from now on are served after adoption.
    let socket = ApiSocket::bind(path)?;
    let LoadedConfig { config, platform_policy, api_keys } = loaded;
    let listeners = TcpListeners::bind(&config).await?;
    let keys = ListenerKeys::new(&config, &api_keys);
    let config = Arc::new(config);
    let (metrics, workers) = (MetricsExporter::new(log), traffic.clone());
    let services_config = Arc::clone(&config);
    let open_services =
        move || start_services(services_config, platform_policy, metrics, stopping, workers);
    let (api, secrets) = spawn_blocking(open_services).await??;
    let draining = start_gateway(&config, &api, &traffic).await?;
    tokio::spawn(api.agent.clone().run_watchers());
    let follower = ContainerFollower::new(api.agent.clone(), config.container_engines());
    tokio::spawn(follower.run());
    tokio::spawn(Arc::clone(&secrets).run());
    if let Some(port) = config.ca_delivery_port() {
        let registry = Arc::clone(api.agent.registry());
        tokio::spawn(CaDelivery::new(registry, Arc::clone(&api.proxy), port).run());
    }
    let serving = listeners.serve(&keys, &api);
    let reloader = ConfigReloader {
        load,
        agent: api.agent.clone(),
        secrets,
        proxy: Arc::clone(&api.proxy),
        keys,
        metrics: Arc::clone(&api.metrics),
        config: AgentConfig::clone(&config),
        api_keys,
    };
    tokio::spawn(reloader.run(hangups));
    tracing::info!(socket = %path.display(), sandboxes = api.agent.registry().len(), "ready");
    // Without systemd this does nothing.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let (stopping, record_writer) = (api.stopping.clone(), Arc::clone(&api.record_writer));
    tokio::try_join!(socket.serve(router(api.clone()), stopping), serving)?;
    if let Some(draining) = draining {
        draining.await?;
    }
    signals.abort();
    let _ = spawn_blocking(move || record_writer.write_all()).await; // it logs its errors
    tracing::info!("stopped; the kernel goes on enforcing");
    Ok(())
}

/// Starts the gateway, if it is configured. The task ends when the agent stops and the gateway's
/// requests have ended.
async fn start_gateway(
    config: &AgentConfig,
    api: &ApiState,
    traffic: &TrafficWorkers,
) -> Result<Option<JoinHandle<()>>> {
    let Some(settings) = gateway_settings(config)? else { return Ok(None) };
    let (registry, counts) = (Arc::clone(api.agent.registry()), api.gateway.clone());
    let limit = settings.drain_timeout;
    let workers = traffic.clone();
    let starting = async move { Gateway::start(&settings, registry, counts, workers).await };
    let gateway = traffic.next_runtime().spawn(starting).await??;
    let draining = gateway.drain_when_stopping(api.stopping.clone(), limit);
    Ok(Some(traffic.next_runtime().spawn(draining)))
}

/// The optional TCP listeners.
struct TcpListeners {
    api: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl TcpListeners {
    async fn bind(config: &AgentConfig) -> Result<Self> {
        let api = bind_optional("api.listen", config.api.listen).await?;
        let metrics = bind_optional("metrics.listen", config.metrics.listen).await?;
        Ok(Self { api, metrics })
    }

    /// Serves until the agent stops.
    fn serve(
        self,
        keys: &ListenerKeys,
        api: &ApiState,
    ) -> impl Future<Output = Result<()>> + use<> {
        let stopping = api.stopping.clone();
        let api_router = router_with_keys(api.clone(), keys.api.clone());
        let metrics_router = metrics_router(api.clone(), keys.metrics.clone());
        async move {
            let serve = async |listener: Option<TcpListener>, router| match listener {
                Some(listener) => serve_tcp(listener, router, stopping.clone()).await,
                None => Ok(()),
            };
            tokio::try_join!(serve(self.api, api_router), serve(self.metrics, metrics_router))?;
            Ok(())
        }
    }
}

async fn bind_optional(key: &str, address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    Ok(Some(listener.with_context(|| format!("{key}: cannot listen on {address}"))?))
}

/// Loads the dataplane and adopts its state. Blocks.
fn start_services(
    config: Arc<AgentConfig>,
    platform_policy: PlatformPolicy,
    metrics: MetricsExporter,
    stopping: watch::Receiver<bool>,
    workers: TrafficWorkers,
) -> Result<(ApiState, Arc<SecretWatcher>)> {
    let dataplane = Dataplane::open(config.dataplane_settings())
        .context("cannot load the kernel programs: `policy-agent doctor` says what is missing")?;
    let ring = dataplane.open_event_reader()?;
    let dataplane_control: Arc<dyn DataplaneControl> = Arc::new(dataplane);
    let (platform_policy, attribution) =
        (CurrentPlatformPolicy::from(platform_policy), Arc::<EventAttribution>::default());
    let (record, record_file) = open_record(&config.state_dir);
    let event_buffer =
        Arc::new(EventBuffer::new(Arc::clone(&dataplane_control), Arc::clone(&record)));
    // Before adoption, after which requests of sandboxes need them.
    let secrets = SecretStore::open(&config.state_dir)?;
    let secret_watcher = SecretWatcher::start(config.secret_sources(), secrets.clone());
    let proxy = Arc::new(TransparentProxy::new(
        config.proxy_settings(secrets.clone())?,
        platform_policy.clone(),
        Arc::clone(&event_buffer),
        workers,
    )?);
    let store = SandboxStore::open(&config.state_dir)?;
    let pooled_interfaces = config.pooled_interfaces();
    let agent = Agent::start(
        dataplane_control,
        Arc::<TransparentProxy>::clone(&proxy),
        store,
        platform_policy,
        Arc::clone(&attribution),
        pooled_interfaces,
    )?;
    // Events from before the start belong to adopted sandboxes, so the reader starts after
    // adoption.
    spawn_reader(ring, Arc::clone(&event_buffer), attribution)?;
    let writer = RecordWriter::new(record, Arc::clone(agent.registry()), record_file);
    let record_writer = Arc::new(writer);
    record_writer.spawn()?;
    let gateway = gateway::GatewayMetrics::default();
    let (metrics, events) = (Arc::new(metrics), event_buffer);
    let api = ApiState {
        agent,
        events,
        record_writer,
        proxy,
        secrets,
        gateway,
        metrics,
        config,
        stopping,
    };
    Ok((api, secret_watcher))
}

/// Opens the record of flows, with what earlier agents recorded.
fn open_record(state_dir: &Path) -> (Arc<FlowRecord>, RecordFile) {
    let (record, file) = (Arc::<FlowRecord>::default(), RecordFile::new(state_dir));
    match file.load_into(&record) {
        Ok(0) => {}
        Ok(skipped) => tracing::warn!(lines = skipped, "the record of flows has damaged lines"),
        Err(error) => tracing::warn!("the record of flows is lost: {error:#}"),
    }
    (record, file)
}

/// Returns the settings of the gateway. `None` if it is not configured.
fn gateway_settings(config: &AgentConfig) -> Result<Option<gateway::GatewaySettings>> {
    let Some(gateway) = &config.gateway else { return Ok(None) };
    if gateway.domains().is_empty() {
        return Ok(None);
    }
    let sources = || certificate_sources(config, gateway);
    let https = gateway.https.map(|address| sources().map(|it| (address, it))).transpose()?;
    Ok(Some(gateway::GatewaySettings {
        http: gateway.http,
        https,
        max_connections_per_sandbox: usize::try_from(gateway.max_connections_per_sandbox)?,
        max_connections_per_client: usize::try_from(gateway.max_connections_per_client)?,
        envd_port: gateway.envd_port,
        http2_ports: gateway.http2_ports.clone(),
        tcp_tunnels: gateway.tcp_tunnels,
        start_timeout: Duration::from_secs(gateway.start_timeout.into()),
        drain_timeout: Duration::from_secs(gateway.drain_timeout.into()),
        trusted_proxies: gateway.trusted_proxies()?,
        proxy_protocol: gateway.proxy_protocol,
        domains: gateway.domains().to_vec(),
    }))
}

/// The operator's certificates, or self-signed ones for all domains.
fn certificate_sources(
    config: &AgentConfig,
    gateway: &GatewayConfig,
) -> Result<gateway::CertificateSources> {
    let directory = gateway.tls_directory.clone();
    let files = match (&gateway.tls_cert, &gateway.tls_key) {
        (Some(cert), Some(key)) => {
            vec![CertificateFiles { cert: cert.clone(), key: key.clone() }]
        }
        _ if directory.is_some() => Vec::new(),
        _ => {
            let place = config.state_dir.join("gateway");
            let sign = |domain: &String| CertificateFiles::self_signed(&place, domain);
            gateway.domains().iter().map(sign).collect::<Result<_>>()?
        }
    };
    Ok(gateway::CertificateSources { files, directory })
}
