//! nginx and HAProxy, configured as an operator would for this purpose, and the server: another nginx,
//! which answers only requests with the header.

use anyhow::Result;
use tempfile::TempDir;

use super::super::{
    proxy_bench::{
        bench_process::BenchProcess,
        proxy_peers::TLS_LISTEN_PORT,
        wire_protocol::{SERVER_NAME, server_address},
    },
    reverse_proxy::{self, HAPROXY_FORWARDING, NGINX_FORWARDING, wait_until_listening},
};
use policy_testbed::{
    network::{NetworkNamespace, TestNetwork},
    test_servers::HTTPS_PORT,
};

/// The value of the header `Authorization` that is set.
pub(super) const CREDENTIAL: &str = "Bearer of-the-operator";
/// The length of the body of a response.
pub(super) const RESPONSE_BYTES: usize = 128;
/// The authority that has issued all certificates, in the directory of files.
pub(super) const AUTHORITY_FILE: &str = "authority.pem";

/// Starts the server in the internet, and waits until it listens.
pub(super) fn start_server(network: &TestNetwork, files: &TempDir) -> Result<BenchProcess> {
    let (at, text) = (files.path().display(), "x".repeat(RESPONSE_BYTES));
    let server = reverse_proxy::start_nginx(
        &network.internet,
        1,
        &format!(
            "access_log off;
             keepalive_requests 100000000;
             keepalive_timeout 1h;
             server {{
                listen {HTTPS_PORT} ssl backlog=4096;
                server_name {SERVER_NAME};
                ssl_certificate {at}/cert;
                ssl_certificate_key {at}/key;
                if ($http_authorization != \"{CREDENTIAL}\") {{ return 403; }}
                return 200 {text};
             }}"
        ),
    )?;
    wait_until_listening(&network.host, server_address(HTTPS_PORT))?;
    Ok(server)
}

/// Starts nginx on the host.
pub(super) fn start_nginx(host: &NetworkNamespace, files: &TempDir) -> Result<BenchProcess> {
    let at = files.path().display();
    let server = server_address(HTTPS_PORT);
    reverse_proxy::start_nginx(
        host,
        2,
        &format!(
            "access_log off;
             keepalive_requests 100000000;
             keepalive_timeout 1h;
             upstream server {{
                server {server};
                keepalive 128;
                keepalive_requests 100000000;
                keepalive_timeout 1h;
             }}
             server {{
                listen {TLS_LISTEN_PORT} ssl backlog=4096 reuseport;
                server_name {SERVER_NAME};
                ssl_certificate {at}/cert;
                ssl_certificate_key {at}/key;
                location / {{
                    proxy_pass https://server;
                    {NGINX_FORWARDING}
                    proxy_set_header Authorization \"{CREDENTIAL}\";
                    proxy_ssl_protocols TLSv1.2 TLSv1.3;
                    proxy_ssl_server_name on;
                    proxy_ssl_name {SERVER_NAME};
                    proxy_ssl_verify on;
                    proxy_ssl_trusted_certificate {at}/{AUTHORITY_FILE};
                }}
             }}"
        ),
    )
}

/// Starts HAProxy on the host.
pub(super) fn start_haproxy(host: &NetworkNamespace, files: &TempDir) -> Result<BenchProcess> {
    let at = files.path().display();
    let server = server_address(HTTPS_PORT);
    reverse_proxy::start_haproxy(
        host,
        &format!(
            "global
                nbthread 2
                maxconn 4096
             defaults
                {HAPROXY_FORWARDING}
             frontend sandbox
                bind :{TLS_LISTEN_PORT} backlog 4096 ssl crt {at}/both alpn http/1.1
                http-request set-header Authorization \"{CREDENTIAL}\"
                default_backend server
             backend server
                server server {server} ssl verify required ca-file {at}/{AUTHORITY_FILE} \
                sni str({SERVER_NAME}) verifyhost {SERVER_NAME}\n"
        ),
    )
}
