//! The agent's own configuration: a TOML file in which every key is optional, and the flags of
//! `run` that override it.

mod api_keys;
mod changes;
mod containers;
#[cfg(test)]
mod documented;
mod domain_setting;
#[cfg(test)]
mod fuzz;
mod gateway;
mod interfaces;
mod metrics;
mod parse;
mod redact;
mod rules;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

pub use self::{
    api_keys::{ApiKeyConfig, ApiRole},
    changes::ConfigChange,
    containers::ContainersConfig,
    domain_setting::DomainSetting,
    gateway::GatewayConfig,
    interfaces::InterfaceConfig,
    metrics::MetricsConfig,
    rules::{RulesConfig, SecretsConfig},
};
use crate::{
    agent::PooledInterface,
    containers::ContainerEngines,
    dataplane,
    policy::{DomainName, Floor, PolicyDefaults},
    proxy,
    secrets::{SecretSources, SecretStore},
};

/// The agent's configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// The directory that keeps the sandboxes across restarts.
    pub state_dir: PathBuf,
    /// The directory for pinned links and maps, on a BPF file system.
    pub bpffs: PathBuf,
    /// The DNS server of sandboxes that specify none.
    pub default_nameserver: IpAddr,
    /// The settings of `[api]`.
    pub api: ApiConfig,
    /// The settings of `[metrics]`.
    pub metrics: MetricsConfig,
    /// The settings of `[dataplane]`.
    pub dataplane: DataplaneConfig,
    /// The settings of `[proxy]`.
    pub proxy: ProxyConfig,
    /// The settings of `[rules]`.
    pub rules: RulesConfig,
    /// The settings of `[secrets]`.
    pub secrets: SecretsConfig,
    /// The settings of `[containers]`.
    pub containers: ContainersConfig,
    /// The settings of `[gateway]`; without them, no gateway runs.
    pub gateway: Option<GatewayConfig>,
    /// The entries of `[[interfaces]]`.
    pub interfaces: Vec<InterfaceConfig>,
    /// The entries of `[[slots]]`, the old name of `[[interfaces]]`.
    pub slots: Vec<InterfaceConfig>,
}

/// `[api]`: the API over TCP, in addition to the Unix socket.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// The address of the listener. Default: none.
    pub listen: Option<SocketAddr>,
    /// Whether the listener also serves the page `/ui`.
    pub ui: bool,
    /// Keys with the role `admin` and without names.
    pub api_keys: Vec<String>,
    /// A TOML file with `[[keys]]` like `[[api.keys]]`.
    pub keys_file: Option<PathBuf>,
    /// The entries of `[[api.keys]]`: keys with names and roles.
    pub keys: Vec<ApiKeyConfig>,
}

/// Hides the keys.
impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiConfig").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// `[dataplane]`: enforcement in the kernel.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataplaneConfig {
    /// The hooks that judge packets.
    pub mode: dataplane::HookMode,
    /// How programs are attached.
    pub attach: dataplane::AttachMethod,
    /// Whether the kernel's grace periods may be expedited while interfaces are attached and
    /// detached.
    pub expedite_rcu: bool,
    /// Where compiled policies are.
    pub tables: dataplane::TableKind,
    /// What happens to denied packets.
    pub deny_action: dataplane::DenyAction,
    /// Who may open connections to sandboxes.
    pub inbound: dataplane::InboundSource,
    /// What drops packets that came past the programs.
    pub guard: dataplane::GuardMethod,
    /// The bit of the mark that tells the guard what may pass.
    pub guard_mark: dataplane::GuardMark,
    /// Destinations that every sandbox may reach.
    pub platform_allow: Vec<String>,
    /// Destinations that no sandbox may reach. Default: a built-in list.
    pub platform_deny: Option<Vec<String>>,
    /// Additional entries for `platform_deny` or the built-in list.
    pub platform_deny_add: Vec<String>,
}

/// `[proxy]`: connections that are judged by name or forwarded to a sandbox's `egressProxy`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// The DNS servers that resolve allowed names. Default: those of the host's resolv.conf.
    pub resolvers: Vec<SocketAddr>,
    /// The maximum number of concurrent connections of one sandbox through the proxy.
    pub max_connections_per_sandbox: u32,
    /// The name under which sandboxes ask the agent about their own policy. Empty: none.
    pub policy_host: String,
}

impl Default for DataplaneConfig {
    fn default() -> Self {
        Self {
            mode: dataplane::HookMode::default(),
            attach: dataplane::AttachMethod::default(),
            expedite_rcu: true,
            tables: dataplane::TableKind::default(),
            deny_action: dataplane::DenyAction::default(),
            inbound: dataplane::InboundSource::default(),
            guard: dataplane::GuardMethod::default(),
            guard_mark: dataplane::GuardMark::default(),
            platform_allow: Vec::new(),
            platform_deny: None,
            platform_deny_add: Vec::new(),
        }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            max_connections_per_sandbox: 1024,
            policy_host: "policy.internal".to_owned(),
        }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/policy-agent".into(),
            bpffs: "/sys/fs/bpf/policy-agent".into(),
            default_nameserver: IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
            api: ApiConfig::default(),
            metrics: MetricsConfig::default(),
            dataplane: DataplaneConfig::default(),
            proxy: ProxyConfig::default(),
            containers: ContainersConfig::default(),
            rules: RulesConfig::default(),
            secrets: SecretsConfig::default(),
            gateway: None,
            interfaces: Vec::new(),
            slots: Vec::new(),
        }
    }
}

impl AgentConfig {
    /// Loads the configuration from `path`, or the defaults without one.
    ///
    /// # Errors
    /// The file is unreadable or invalid; the error names the key.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("fix the configuration {}", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let config: Self = parse::parse_toml(text)?;
        config.check()?;
        Ok(config)
    }

    /// Validates what the types cannot express.
    ///
    /// # Errors
    /// A key is invalid; the error names it.
    pub fn check(&self) -> Result<()> {
        if self.api.listen.is_some() && !self.api.has_keys() {
            bail!(
                "api.listen: needs api.api_keys, [[api.keys]] or api.keys_file, else everyone who \
                 reaches it could set policies"
            );
        }
        self.api.check_keys()?;
        if self.api.ui && self.api.listen.is_none() {
            bail!("api.ui: needs api.listen, the address at which /ui is served");
        }
        self.metrics.check(self.api.listen)?;
        self.secrets.check()?;
        if self.ca_delivery_port() == Some(0) {
            bail!(
                "rules.send_ca_to_envd: gateway.envd_port says that there is no envd; write its port \
                 there"
            );
        }
        for (key, path) in [("state_dir", &self.state_dir), ("bpffs", &self.bpffs)] {
            if !path.is_absolute() {
                bail!("{key}: {:?}: is not an absolute path", path.display().to_string());
            }
        }
        if self.default_nameserver.is_unspecified() {
            bail!("default_nameserver: \"{}\": is not a host", self.default_nameserver);
        }
        for (index, resolver) in self.proxy.resolvers.iter().enumerate() {
            if resolver.ip().is_unspecified() || resolver.port() == 0 {
                bail!(
                    "proxy.resolvers[{index}]: \"{resolver}\": write address:port, like 10.0.0.53:53"
                );
            }
        }
        if self.proxy.max_connections_per_sandbox == 0 {
            bail!("proxy.max_connections_per_sandbox: 0 would refuse every name; write 1 or more");
        }
        self.proxy.policy_host()?;
        if let Some(gateway) = &self.gateway {
            gateway.check()?;
        }
        interfaces::check_interfaces(self.keyed_interfaces())?;
        self.floor()?;
        Ok(())
    }

    /// The floor, which applies to all sandboxes whatever their policies.
    ///
    /// # Errors
    /// An entry of `platform_allow`, `platform_deny` or `platform_deny_add` is invalid; the error
    /// names it.
    pub fn floor(&self) -> Result<Floor> {
        let DataplaneConfig { platform_allow, platform_deny, platform_deny_add, .. } =
            &self.dataplane;
        Floor::new(platform_allow, platform_deny.as_deref())
            .and_then(|floor| floor.with_deny_add(platform_deny_add))
            .map_err(|invalid| anyhow::anyhow!("[dataplane] {invalid}"))
    }

    /// The defaults for sandboxes that do not specify a value.
    #[must_use]
    pub fn defaults(&self) -> PolicyDefaults {
        PolicyDefaults { nameserver: self.default_nameserver, rule_limits: self.rules.limits() }
    }

    /// The settings of the dataplane.
    #[must_use]
    pub fn dataplane_settings(&self) -> dataplane::DataplaneSettings {
        let DataplaneConfig {
            mode,
            attach,
            expedite_rcu,
            tables,
            deny_action,
            inbound,
            guard,
            guard_mark,
            ..
        } = self.dataplane;
        dataplane::DataplaneSettings {
            bpffs: self.bpffs.clone(),
            mode,
            attach_method: attach,
            expedite_rcu,
            tables,
            deny_action,
            inbound_source: inbound,
            guard: dataplane::GuardSettings { method: guard, mark: guard_mark },
        }
    }

    /// The settings of the egress proxy, which reads `secrets`.
    ///
    /// # Errors
    /// A key is invalid; the error names it.
    pub fn proxy_settings(&self, secrets: SecretStore) -> Result<proxy::ProxySettings> {
        let ProxyConfig { resolvers, max_connections_per_sandbox, .. } = self.proxy.clone();
        let gateway =
            self.gateway.as_ref().map_or([None, None], |served| [served.http, served.https]);
        let gateway = gateway.into_iter().flatten().collect();
        let with_gateway = self.gateway.is_some();
        Ok(proxy::ProxySettings {
            resolvers,
            max_connections_per_sandbox,
            gateway_listeners: gateway,
            with_gateway,
            info_host: self.proxy.policy_host()?,
            state_dir: self.state_dir.clone(),
            extra_roots: self.rules.extra_roots.clone(),
            secrets,
        })
    }

    /// The container engines that sandboxes may name.
    #[must_use]
    pub(crate) fn container_engines(&self) -> ContainerEngines {
        self.containers.engines()
    }

    /// Where the operator's secrets are.
    #[must_use]
    pub fn secret_sources(&self) -> SecretSources {
        self.secrets.sources()
    }

    /// The port of envd, if it is sent the authorities of sandboxes with rules.
    #[must_use]
    pub fn ca_delivery_port(&self) -> Option<u16> {
        self.rules.send_ca_to_envd.then(|| self.envd_port())
    }

    /// The port of envd in sandboxes; 0: there is none.
    fn envd_port(&self) -> u16 {
        self.gateway.as_ref().map_or(GatewayConfig::default().envd_port, |it| it.envd_port)
    }

    /// The pool of interfaces on which sandboxes are created.
    #[must_use]
    pub fn pooled_interfaces(&self) -> Vec<PooledInterface> {
        self.keyed_interfaces().map(|(_, interface)| interface.to_pooled()).collect()
    }

    /// The interfaces under both names, with their keys.
    fn keyed_interfaces(&self) -> impl Iterator<Item = (String, &InterfaceConfig)> {
        with_keys("interfaces", &self.interfaces).chain(with_keys("slots", &self.slots))
    }

    /// Warnings about valid settings that should change.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let old = (!self.slots.is_empty()).then(|| {
            "[[slots]] is called [[interfaces]] now; the old name will go away".to_owned()
        });
        old.into_iter().collect()
    }

    /// The public URL of a port of a sandbox. `None` if the gateway does not serve it.
    #[must_use]
    pub fn public_url(&self, id: &str, port: u16) -> Option<String> {
        self.gateway.as_ref()?.public_url(id, port)
    }
}

impl ProxyConfig {
    /// The name in `policy_host`, if there is one.
    fn policy_host(&self) -> Result<Option<DomainName>> {
        if self.policy_host.is_empty() {
            return Ok(None);
        }
        let name = DomainName::parse(&self.policy_host);
        let problem = |problem| {
            anyhow::anyhow!(
                "proxy.policy_host: {:?}: {problem}; \"\" turns it off",
                self.policy_host
            )
        };
        name.map(Some).map_err(problem)
    }
}

/// Pairs the items of a list with their keys.
fn with_keys<'a>(
    key: &'static str,
    items: &'a [InterfaceConfig],
) -> impl Iterator<Item = (String, &'a InterfaceConfig)> {
    items.iter().enumerate().map(move |(index, item)| (format!("{key}[{index}]"), item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_sandboxes_own_policy_can_be_turned_off() {
        let host = |text: &str| {
            let config = AgentConfig::parse(text).expect("a configuration");
            config.proxy.policy_host().expect("a name").map(|name| name.to_string())
        };
        assert_eq!(host("").as_deref(), Some("policy.internal"));
        assert_eq!(host("[proxy]\npolicy_host = \"Net.Example\"").as_deref(), Some("net.example"));
        assert_eq!(host("[proxy]\npolicy_host = \"\""), None);
        let error = problem("[proxy]\npolicy_host = \"a b\"");
        assert!(error.starts_with("proxy.policy_host: \"a b\": "), "{error}");
    }

    fn problem(text: &str) -> String {
        format!("{:#}", AgentConfig::parse(text).expect_err("a wrong configuration"))
    }

    #[test]
    fn every_key_is_optional() {
        let config = AgentConfig::parse("").expect("an empty file");
        assert_eq!(config.state_dir, Path::new("/var/lib/policy-agent"));
        assert_eq!(config.dataplane.mode, dataplane::HookMode::Tc);
        assert!(config.pooled_interfaces().is_empty());
        assert_eq!(config.public_url("web", 80), None);
    }

    #[test]
    fn the_documented_file_is_accepted() {
        let config = AgentConfig::parse(
            r#"
            state_dir = "/s"
            bpffs = "/sys/fs/bpf/x"
            default_nameserver = "1.1.1.1"
            [api]
            listen = "127.0.0.1:3000"
            api_keys = ["k"]
            keys_file = "/etc/policy-agent/keys.toml"
            [[api.keys]]
            name = "ci"
            role = "sandboxes"
            key = "k2"
            [metrics]
            listen = "127.0.0.1:9464"
            token = "t"
            [dataplane]
            mode = "xdp"
            attach = "clsact"
            deny_action = "drop"
            inbound = "host"
            guard = "nftables"
            guard_mark = 0x20000000
            platform_allow = ["10.0.0.53"]
            platform_deny = ["10.0.0.0/8"]
            platform_deny_add = ["203.0.113.0/24"]
            [proxy]
            resolvers = ["10.0.0.53:53"]
            max_connections_per_sandbox = 1024
            [rules]
            max_domains = 20
            max_headers = 20
            max_value_length = 4096
            max_secrets = 32
            [secrets]
            file = "/etc/policy-agent/secrets.toml"
            directory = "/run/credentials/policy-agent"
            [gateway]
            domain = "sandbox.example.com"
            http = "0.0.0.0:80"
            https = "0.0.0.0:443"
            tls_cert = "/c"
            tls_key = "/k"
            max_connections_per_sandbox = 1024
            envd_port = 49983
            trusted_proxies = ["192.0.2.0/24"]
            proxy_protocol = true
            [[interfaces]]
            interface = "tap0"
            addresses = ["10.11.0.2"]
            [[interfaces]]
            interface = "tap0"
            netns = "/run/netns/slot1"
            addresses = ["10.11.0.2", "fd00::2"]
            mac = "02:fc:00:00:00:05"
            "#,
        )
        .expect("the documented file");
        assert_eq!(config.pooled_interfaces()[0].interface.name, "tap0");
        let url = config.public_url("web", 8080).expect("a gateway");
        assert_eq!(url, "https://8080-web.sandbox.example.com");
        assert_eq!(config.dataplane_settings().deny_action, dataplane::DenyAction::Drop);
    }

    #[test]
    fn an_unknown_key_is_named() {
        assert!(problem("[dataplane]\nplatform_denny = []").contains("platform_denny"));
        assert!(problem("modes = 1").contains("modes"));
        for (text, meant) in [
            ("[dataplane]\nplatform_denny = []", "did you mean `platform_deny`?"),
            ("[dataplane]\nplatformAllow = []", "did you mean `platform_allow`?"),
            ("[dataplanes]\n", "did you mean `dataplane`?"),
            ("[gateway]\ntls-cert = \"/c\"", "did you mean `tls_cert`?"),
            ("[[interface]]\n", "did you mean `interfaces`?"),
        ] {
            let message = problem(text);
            assert!(message.contains(meant), "{text}: {message}");
        }
        assert!(!problem("nonsense = 1").contains("did you mean"));
    }

    #[test]
    fn interfaces_are_read_under_their_old_name_too() {
        let one = |key: &str, address: &str| {
            format!(
                "[[{key}]]\ninterface = \"tap{address}\"\naddresses = [\"10.11.0.{address}\"]\n"
            )
        };
        let new = AgentConfig::parse(&one("interfaces", "2")).expect("good");
        assert_eq!((new.pooled_interfaces().len(), new.warnings()), (1, Vec::new()));
        let old = AgentConfig::parse(&one("slots", "2")).expect("good");
        assert_eq!(old.pooled_interfaces(), new.pooled_interfaces());
        assert!(old.warnings()[0].contains("[[interfaces]]"));
        let both = [one("interfaces", "2"), one("slots", "3")].concat();
        assert_eq!(AgentConfig::parse(&both).expect("good").pooled_interfaces().len(), 2);
        let twice = problem(&[one("interfaces", "2"), one("slots", "2")].concat());
        assert!(twice.contains("slots[0].interface"), "{twice}");
    }

    #[test]
    fn a_wrong_value_is_named() {
        assert!(problem("[dataplane]\nmode = \"ebpf\"").contains("ebpf"));
        assert!(problem("[dataplane]\nguard_mark = 0x3").contains("0x3 is not one bit"));
        assert!(problem("[dataplane]\nplatform_allow = [\"10.0.0.0/40\"]").contains("10.0.0.0/40"));
        assert!(
            problem("[dataplane]\nplatform_deny_add = [\"1.1.1.1\", \"x\"]")
                .contains("platform_deny_add[1]")
        );
        assert!(problem("state_dir = \"here\"").contains("state_dir"));
        assert!(problem("[secrets]\nfile = \"here\"").contains("secrets.file"));
        assert!(problem("[rules]\nmax_domains = -1").contains("max_domains"));
    }

    #[test]
    fn a_proxy_that_could_not_work_is_refused() {
        assert!(problem("[proxy]\nresolvers = [\"10.0.0.53\"]").contains("resolvers"));
        assert!(problem("[proxy]\nresolvers = [\"0.0.0.0:53\"]").contains("proxy.resolvers[0]"));
        let none = problem("[proxy]\nmax_connections_per_sandbox = 0");
        assert!(none.contains("max_connections_per_sandbox"));
    }

    #[test]
    fn tcp_needs_a_key() {
        assert!(problem("[api]\nlisten = \"127.0.0.1:1\"").contains("api_keys"));
    }
}
