//! Containers: the plugin for CNI chained after Debian's plugins, containers of Docker and Podman, and
//! the hook of OCI runtimes.

mod cni_network;
mod cni_plugin;
mod container_engine;
mod engine_containers;
mod oci_hook;
