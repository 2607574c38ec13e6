//! Reloads the configuration on SIGHUP: all of it, or nothing.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::{signal::unix::Signal, task::spawn_blocking};

use crate::{
    agent::{Agent, PlatformPolicy},
    api::{ApiKeys, CurrentApiKeys},
    config::{AgentConfig, ApiKeyConfig, ConfigChange},
    metrics::MetricsExporter,
    proxy::{OriginRoots, TransparentProxy},
    secrets::SecretWatcher,
};

/// A valid configuration and what is made from it.
pub(crate) struct LoadedConfig {
    /// The configuration.
    pub config: AgentConfig,
    /// The operator's policy for all sandboxes.
    pub platform_policy: PlatformPolicy,
    /// All keys of the API.
    pub api_keys: Vec<ApiKeyConfig>,
}

/// Reads the configuration anew. Blocks.
pub(crate) type ConfigLoader = Arc<dyn Fn() -> Result<LoadedConfig> + Send + Sync>;

/// The keys in force, which a reload replaces.
pub(super) struct ListenerKeys {
    /// Those of `[api]`.
    pub api: CurrentApiKeys,
    /// The token of `[metrics]`.
    pub metrics: CurrentApiKeys,
}

impl ListenerKeys {
    pub(super) fn new(config: &AgentConfig, api_keys: &[ApiKeyConfig]) -> Self {
        Self {
            api: CurrentApiKeys::new(Some(ApiKeys::new(api_keys))),
            metrics: CurrentApiKeys::new(metrics_keys(config)),
        }
    }
}

/// The keys of the metrics' listener: its token, if it has one.
fn metrics_keys(config: &AgentConfig) -> Option<ApiKeys> {
    config.metrics.token.as_deref().map(ApiKeys::for_token)
}

/// Reloads the configuration.
pub(super) struct ConfigReloader {
    pub load: ConfigLoader,
    pub agent: Agent,
    /// Reads the operator's secrets, also if the configuration is invalid.
    pub secrets: Arc<SecretWatcher>,
    /// Verifies servers of names with rules.
    pub proxy: Arc<TransparentProxy>,
    pub keys: ListenerKeys,
    pub metrics: Arc<MetricsExporter>,
    /// The configuration in force.
    pub config: AgentConfig,
    /// The API keys in force.
    pub api_keys: Vec<ApiKeyConfig>,
}

impl ConfigReloader {
    /// Reloads at every SIGHUP.
    pub(super) async fn run(mut self, mut hangups: Signal) {
        while hangups.recv().await.is_some() {
            tell_systemd(NotifyState::monotonic_usec_now().ok(), NotifyState::Reloading);
            let result = self.reload().await;
            self.metrics.record_reload(result.is_ok());
            let status = match result {
                Ok(status) => status,
                Err(error) => {
                    tracing::error!(
                        "SIGHUP: the configuration was not reloaded, and the one before stays in \
                         force: {error:#}"
                    );
                    format!("the last reload failed: {error:#}")
                }
            };
            tell_systemd(Some(NotifyState::Status(&status)), NotifyState::Ready);
        }
    }

    /// Puts the configuration in force as it is now. Returns what happened.
    async fn reload(&mut self) -> Result<String> {
        let secrets = Arc::clone(&self.secrets);
        spawn_blocking(move || secrets.refresh(true)).await.context("cannot read secrets")?;
        let load = Arc::clone(&self.load);
        let LoadedConfig { config, platform_policy, api_keys } =
            spawn_blocking(move || load()).await.context("cannot read it")??;
        let changes = self.config.changes_to(&config)?;
        let merged = self.config.with_live_keys_of(&config);
        let extra_roots = merged.rules.extra_roots.clone();
        let roots = spawn_blocking(move || OriginRoots::read(extra_roots.as_deref()));
        let roots = roots.await.context("cannot read roots")??;
        // After this, nothing can fail.
        let sandboxes = self.agent.replace_platform_policy(platform_policy).await?;
        // The system's roots may have changed too.
        self.proxy.replace_origin_roots(roots);
        self.keys.api.replace(Some(ApiKeys::new(&api_keys)));
        self.keys.metrics.replace(metrics_keys(&merged));
        let changed_keys = changed_key_names(&self.api_keys, &api_keys);
        (self.config, self.api_keys) = (merged, api_keys);
        Ok(log_changes(&config, &changes, &changed_keys, sandboxes))
    }
}

/// Logs what a reload changed, and returns a summary.
fn log_changes(
    config: &AgentConfig,
    changes: &[ConfigChange],
    changed_keys: &[String],
    sandboxes: usize,
) -> String {
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    for change in changes {
        if change.is_live {
            tracing::info!("configuration: {change}");
        } else {
            tracing::warn!(
                "configuration: {change}; this needs a restart, and the agent keeps what it has"
            );
        }
    }
    if !changed_keys.is_empty() {
        tracing::info!("configuration: API keys: {}", changed_keys.join(" "));
    }
    let kept = changes.iter().filter(|change| !change.is_live).count();
    let status = match (changes.is_empty() && changed_keys.is_empty(), kept) {
        (true, _) => "the configuration is unchanged".to_owned(),
        (false, 0) => format!("the configuration is reloaded; {sandboxes} sandboxes changed"),
        (false, kept) => format!(
            "the configuration is reloaded; {sandboxes} sandboxes changed; {kept} keys need a restart"
        ),
    };
    tracing::info!("SIGHUP: {status}");
    status
}

/// The names of added keys with `+`, of removed ones with `-`, of others that changed with `~`.
fn changed_key_names(before: &[ApiKeyConfig], after: &[ApiKeyConfig]) -> Vec<String> {
    let named =
        |list: &[ApiKeyConfig], name: &str| list.iter().find(|key| key.name == name).cloned();
    let added = after.iter().filter_map(|key| match named(before, &key.name) {
        None => Some(format!("+{} ({})", key.name, key.role)),
        Some(known) if known != *key => Some(format!("~{} ({})", key.name, key.role)),
        Some(_) => None,
    });
    let removed = before.iter().filter(|key| named(after, &key.name).is_none());
    added.chain(removed.map(|key| format!("-{}", key.name))).collect()
}

/// Notifies systemd. Without it this does nothing.
fn tell_systemd(first: Option<NotifyState<'_>>, second: NotifyState<'_>) {
    let states: Vec<_> = first.into_iter().chain([second]).collect();
    let _ = sd_notify::notify(&states);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ApiRole;

    #[test]
    fn keys_are_told_by_name_only() {
        let key = |name: &str, role, key: &str| ApiKeyConfig {
            name: name.to_owned(),
            role,
            key: key.to_owned(),
        };
        let before = [
            key("gone", ApiRole::Admin, "k1"),
            key("same", ApiRole::Admin, "k2"),
            key("new-secret", ApiRole::Read, "k3"),
        ];
        let after = [
            key("same", ApiRole::Admin, "k2"),
            key("new-secret", ApiRole::Read, "k4"),
            key("added", ApiRole::Sandboxes, "k5"),
        ];
        let changed = changed_key_names(&before, &after);
        assert_eq!(changed, ["~new-secret (read)", "+added (sandboxes)", "-gone"]);
    }
}
