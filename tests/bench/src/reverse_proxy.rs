//! Starts nginx and HAProxy, with which the agent's proxies are compared.

use std::{fs, net::SocketAddr};

use anyhow::Result;
use tempfile::TempDir;

use crate::proxy_bench::bench_process::BenchProcess;
use policy_testbed::{
    named_internet::certificate_authority::CertificateAuthority,
    network::{NetworkNamespace, unique_directory},
    probe,
    wait::eventually,
};

/// What nginx says in `location` of requests that it passes on over kept connections.
pub(crate) const NGINX_FORWARDING: &str = "
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_set_header Connection \"\";
    proxy_set_header Host $http_host;";
/// What HAProxy says in `defaults` of requests that it passes on over kept connections.
pub(crate) const HAPROXY_FORWARDING: &str = "
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    http-reuse always";

/// Starts nginx with this number of workers and this `http` section.
pub(crate) fn start_nginx(
    namespace: &NetworkNamespace,
    workers: usize,
    http: &str,
) -> Result<BenchProcess> {
    let directory = unique_directory("nginx")?;
    let place = directory.path().display();
    let file = directory.path().join("nginx.conf");
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = paths.map(|path| format!("{path}_temp_path {place}/{path};")).join("\n");
    fs::write(
        &file,
        format!(
            "user root;
             daemon off;
             pid {place}/pid;
             error_log stderr crit;
             worker_processes {workers};
             events {{ worker_connections 4096; }}
             http {{ {paths} {http} }}\n"
        ),
    )?;
    let mut command = namespace.command("nginx")?;
    command.arg("-e").arg("stderr").arg("-p").arg(directory.path()).arg("-c").arg(file);
    BenchProcess::start(command, directory)
}

/// Starts HAProxy with this configuration.
pub(crate) fn start_haproxy(namespace: &NetworkNamespace, config: &str) -> Result<BenchProcess> {
    let directory = unique_directory("haproxy")?;
    let file = directory.path().join("haproxy.cfg");
    fs::write(&file, config)?;
    let mut command = namespace.command("haproxy")?;
    command.arg("-db").arg("-f").arg(file);
    BenchProcess::start(command, directory)
}

/// Writes a certificate for a name to `cert`, and its key to `key`. HAProxy needs both in one file,
/// `both`.
pub(crate) fn write_certificate(
    files: &TempDir,
    authority: &CertificateAuthority,
    name: &str,
) -> Result<()> {
    let (certificate, key) = authority.issue(name)?;
    fs::write(files.path().join("both"), format!("{certificate}{key}"))?;
    fs::write(files.path().join("cert"), certificate)?;
    fs::write(files.path().join("key"), key)?;
    Ok(())
}

/// Waits until something listens at an address.
pub(crate) fn wait_until_listening(from: &NetworkNamespace, to: SocketAddr) -> Result<()> {
    eventually(&format!("{to} listens"), || probe::connect(from, to).ok().map(drop))
}
