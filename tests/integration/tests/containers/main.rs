//! The plugin for container runtimes, chained after Debian's CNI plugins.

mod cni_network;
mod cni_plugin;
