//! nginx and HAProxy, configured as an operator would for this purpose: they select the sandbox by
//! the Host, add the client's address, keep connections to the service alive, and log every
//! request. The service is another nginx.

use std::net::SocketAddr;

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    proxy_bench::bench_process::BenchProcess,
    reverse_proxy::{self, HAPROXY_FORWARDING, NGINX_FORWARDING},
};
use policy_testbed::{
    network::NetworkNamespace,
    public_url::{GATEWAY_DOMAIN, SERVICE_PORT},
};

/// Starts a service with a short response to every request, on [`SERVICE_PORT`].
pub(crate) fn start_service(sandbox: &NetworkNamespace) -> Result<BenchProcess> {
    let text = "x".repeat(128);
    reverse_proxy::start_nginx(
        sandbox,
        1,
        &format!(
            "access_log off;
             keepalive_requests 100000000;
             server {{ listen {SERVICE_PORT} backlog=4096; return 200 {text}; }}"
        ),
    )
}

/// Starts nginx as a reverse proxy.
pub(crate) fn start_nginx(
    host: &NetworkNamespace,
    files: &TempDir,
    service: SocketAddr,
) -> Result<BenchProcess> {
    let at = files.path().display();
    reverse_proxy::start_nginx(
        host,
        2,
        &format!(
            "access_log {at}/access;
             keepalive_requests 100000000;
             upstream sandbox {{ server {service}; keepalive 128; keepalive_requests 100000000; }}
             server {{
                listen 80 backlog=4096 reuseport;
                listen 443 ssl backlog=4096 reuseport;
                server_name ~^{SERVICE_PORT}-[a-z0-9]+\\.{GATEWAY_DOMAIN}$;
                ssl_certificate {at}/cert;
                ssl_certificate_key {at}/key;
                location / {{
                    proxy_pass http://sandbox;
                    {NGINX_FORWARDING}
                    proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header X-Forwarded-Host $http_host;
                    proxy_set_header X-Forwarded-Proto $scheme;
                }}
             }}"
        ),
    )
}

/// Starts HAProxy as a reverse proxy.
pub(crate) fn start_haproxy(
    host: &NetworkNamespace,
    files: &TempDir,
    service: SocketAddr,
) -> Result<BenchProcess> {
    let both = files.path().join("both");
    reverse_proxy::start_haproxy(
        host,
        &format!(
            "global
                nbthread 2
                maxconn 4096
                log stdout format raw local0
             defaults
                {HAPROXY_FORWARDING}
                log global
                option httplog
             frontend public
                bind :80 backlog 4096
                bind :443 backlog 4096 ssl crt {} alpn http/1.1
                http-request set-header X-Forwarded-For %[src]
                http-request set-header X-Forwarded-Host %[req.hdr(host)]
                http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
                use_backend sandbox if {{ hdr_reg(host) ^{SERVICE_PORT}-[a-z0-9]+\\.{GATEWAY_DOMAIN}$ }}
             backend sandbox
                server sandbox {service}\n",
            both.display(),
        ),
    )
}
