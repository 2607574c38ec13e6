//! Runs servers from Debian's packages as child processes in a namespace.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{NamedInternet, WebSite};
use crate::{
    network::{NetworkNamespace, unique_directory},
    probe,
    test_servers::{HTTP_PORT, HTTPS_PORT},
    wait::eventually,
};

/// A running server. It ends on drop.
pub struct ServerProcess {
    child: Child,
    directory: TempDir,
}

impl ServerProcess {
    /// Starts dnsmasq at an address of the namespace, with the lines of a hosts file.
    pub fn start_dnsmasq(
        namespace: &NetworkNamespace,
        address: IpAddr,
        hosts: &str,
    ) -> Result<Self> {
        let directory = unique_directory("dnsmasq")?;
        let at = directory.path().display();
        let config = format!(
            "user=root\nport=53\nlisten-address={address}\nbind-interfaces\nno-resolv\nno-hosts\n\
             addn-hosts={at}/hosts\npid-file={at}/pid\nlocal-ttl=0\nlog-facility={at}/log\n"
        );
        fs::write(directory.path().join("dnsmasq.conf"), config)?;
        fs::write(directory.path().join("hosts"), hosts)?;
        let file = format!("--conf-file={at}/dnsmasq.conf");
        let daemon =
            Self::start(namespace, directory, "dnsmasq", &["--keep-in-foreground", &file])?;
        daemon.wait_until_listening(namespace, (address, 53).into())?;
        Ok(daemon)
    }

    /// Replaces dnsmasq's hosts file.
    pub fn set_hosts(&self, hosts: &str) -> Result<()> {
        fs::write(self.directory.path().join("hosts"), hosts)?;
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGHUP)?;
        Ok(())
    }

    /// Starts nginx for a site, with HTTP on port 80, and HTTP/2 and HTTP/1.1 over TLS on port 443.
    pub fn start_nginx(
        namespace: &NetworkNamespace,
        names: &NamedInternet,
        site: &WebSite,
    ) -> Result<Self> {
        let directory = unique_directory("nginx")?;
        let (certificate, key) = names.authority.issue(&site.name)?;
        fs::write(directory.path().join("certificate.pem"), certificate)?;
        fs::write(directory.path().join("key.pem"), key)?;
        fs::write(directory.path().join("nginx.conf"), nginx_conf(&directory, site.v4))?;
        let at = directory.path().to_string_lossy().into_owned();
        let arguments = ["-p", &at, "-c", "nginx.conf", "-e", "stderr"];
        let daemon = Self::start(namespace, directory, "nginx", &arguments)?;
        for port in [HTTP_PORT, HTTPS_PORT] {
            daemon.wait_until_listening(namespace, (site.v4, port).into())?;
        }
        Ok(daemon)
    }

    /// Starts microsocks, a SOCKS5 proxy, at an address of the namespace. It cannot resolve names.
    pub fn start_microsocks(namespace: &NetworkNamespace, at: SocketAddr) -> Result<Self> {
        let (address, port) = (at.ip().to_string(), at.port().to_string());
        let arguments = ["-i", &address, "-p", &port];
        let daemon = Self::start(namespace, unique_directory("socks")?, "microsocks", &arguments)?;
        daemon.wait_until_listening(namespace, at)?;
        Ok(daemon)
    }

    fn start(
        namespace: &NetworkNamespace,
        directory: TempDir,
        program: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut command = namespace.command(&program_path(program))?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(directory.path().join("stderr"))?);
        let child = command.spawn().with_context(|| format!("starting {program}"))?;
        Ok(Self { child, directory })
    }

    /// Waits until the server listens.
    fn wait_until_listening(&self, namespace: &NetworkNamespace, at: SocketAddr) -> Result<()> {
        eventually("a server listens", || probe::connect(namespace, at).ok().map(drop))
            .with_context(|| {
                fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
            })
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Servers are in directories that the path of other users than root often lacks.
fn program_path(program: &str) -> String {
    let found = ["/usr/sbin", "/usr/bin"].map(|directory| format!("{directory}/{program}"));
    let found = found.into_iter().find(|path| fs::exists(path).unwrap_or(false));
    found.unwrap_or_else(|| program.to_owned())
}

fn nginx_conf(directory: &TempDir, address: IpAddr) -> String {
    let at = directory.path().display();
    format!(
        "daemon off;
master_process off;
pid {at}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {at}/body;
    proxy_temp_path {at}/proxy;
    fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi;
    scgi_temp_path {at}/scgi;
    server {{
        listen {address}:80;
        listen {address}:443 ssl http2;
        ssl_certificate {at}/certificate.pem;
        ssl_certificate_key {at}/key.pem;
        default_type application/json;
        location / {{
            return 200 '{{\"server\":\"$server_addr\",\"host\":\"$http_host\",\"version\":\"$server_protocol\"}}';
        }}
    }}
}}
"
    )
}
