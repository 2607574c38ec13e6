//! HAProxy and nginx, configured as an operator would for this purpose: they select the server by
//! the name in the ClientHello or by the Host, log nothing, and can handle all connections.
//! nftables redirects to them what a sandbox sends to ports 80 and 443.

use std::fs;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit};

use super::{bench_process::BenchProcess, wire_protocol::SERVER_NAME};
use crate::reverse_proxy;
use policy_testbed::network::{NetworkNamespace, command, unique_directory};

/// The ports on which they listen, for TLS and for HTTP.
pub(crate) const TLS_LISTEN_PORT: u16 = 8443;
const HTTP_LISTEN_PORT: u16 = 8080;

/// The number of pipes that HAProxy may use for splicing.
const SPLICE_PIPES: u64 = 50;
/// The number of files that they need in addition to connections and pipes.
const OTHER_FILES: u64 = 150;

/// The maximum number of connections, limited by the ports of one address.
fn max_connections() -> Result<u64> {
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok((files.saturating_sub(OTHER_FILES) / 2 - SPLICE_PIPES).min(25_000))
}

/// Starts HAProxy, which splices when that pays off, with an additional line in its global section.
pub(crate) fn start_haproxy(host: &NetworkNamespace, tuning: &str) -> Result<BenchProcess> {
    let connections = max_connections()?;
    reverse_proxy::start_haproxy(
        host,
        &format!(
            "global
                nbthread 2
                maxconn {connections}
                maxpipes {SPLICE_PIPES}
                {tuning}
             defaults
                timeout connect 5s
                timeout client 1h
                timeout server 1h
                option splice-auto
             frontend tls
                mode tcp
                bind :{TLS_LISTEN_PORT} backlog 4096
                tcp-request inspect-delay 5s
                tcp-request content accept if {{ req.ssl_hello_type 1 }}
                tcp-request content reject
                use_backend server_tls if {{ req.ssl_sni -i {SERVER_NAME} }}
             backend server_tls
                mode tcp
                server server 203.0.113.10:443
             frontend http
                mode http
                bind :{HTTP_LISTEN_PORT} backlog 4096
                use_backend server_http if {{ hdr(host) -i {SERVER_NAME} }}
             backend server_http
                mode http
                server server 203.0.113.10:80\n"
        ),
    )
}

/// Starts nginx with the stream module, and an additional line in its TLS server.
pub(crate) fn start_nginx(host: &NetworkNamespace, tuning: &str) -> Result<BenchProcess> {
    let directory = unique_directory("nginx")?;
    let place = directory.path().display();
    let file = directory.path().join("nginx.conf");
    fs::write(
        &file,
        format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
             user root;
             daemon off;
             pid {place}/pid;
             error_log stderr crit;
             worker_processes 2;
             events {{ worker_connections {}; }}
             stream {{
                map $ssl_preread_server_name $chosen {{ {SERVER_NAME} server_tls; }}
                upstream server_tls {{ server 203.0.113.10:443; }}
                server {{
                    listen {TLS_LISTEN_PORT} backlog=4096 reuseport;
                    ssl_preread on;
                    proxy_pass $chosen;
                    proxy_timeout 1h;
                    {tuning}
                }}
             }}
             http {{
                access_log off;
                client_body_temp_path {place}/body;
                proxy_temp_path {place}/proxy;
                fastcgi_temp_path {place}/fastcgi;
                uwsgi_temp_path {place}/uwsgi;
                scgi_temp_path {place}/scgi;
                keepalive_requests 1000000;
                upstream server_http {{ server 203.0.113.10:80; keepalive 128; }}
                server {{ listen {HTTP_LISTEN_PORT} default_server backlog=4096 reuseport; return 403; }}
                server {{
                    listen {HTTP_LISTEN_PORT};
                    server_name {SERVER_NAME};
                    location / {{
                        proxy_pass http://server_http;
                        proxy_http_version 1.1;
                        proxy_set_header Connection \"\";
                        proxy_set_header Host $host;
                    }}
                }}
             }}\n",
            // nginx counts both ends of a connection.
            max_connections()? * 2,
        ),
    )?;
    let mut command = host.command("nginx")?;
    command.arg("-e").arg("stderr").arg("-p").arg(directory.path()).arg("-c").arg(file);
    BenchProcess::start(command, directory)
}

/// Redirects the traffic from these interfaces to the peer.
pub(crate) fn redirect_to_peer(host: &NetworkNamespace, interfaces: &[&str]) -> Result<()> {
    let interfaces = interfaces.join(", ");
    let rules = format!(
        "table ip bench {{ chain prerouting {{ type nat hook prerouting priority dstnat;
         iifname {{ {interfaces} }} tcp dport 443 redirect to :{TLS_LISTEN_PORT};
         iifname {{ {interfaces} }} tcp dport 80 redirect to :{HTTP_LISTEN_PORT}\n}}\n}}"
    );
    command::run(host.command("nft")?.arg(rules))?;
    Ok(())
}
