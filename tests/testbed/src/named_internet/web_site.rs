//! A site: a name with one address in each family.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    sync::atomic::Ordering,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{NamedInternet, dns_zone::DnsAnswer, web_server};
use crate::network::{
    NetworkNamespace,
    internet_addresses::{SITE_NETWORK_V4, SITE_NETWORK_V6},
};

/// A site with a name and addresses.
#[derive(Clone, Debug)]
pub struct WebSite {
    /// Its name.
    pub name: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
}

impl WebSite {
    /// Both addresses.
    pub const fn addresses(&self) -> [IpAddr; 2] {
        [self.v4, self.v6]
    }

    /// Returns whether this page comes from one of the site's servers.
    pub fn served_page(&self, page: &Value) -> bool {
        self.addresses().iter().any(|address| page["server"] == address.to_string())
    }
}

impl NamedInternet {
    /// Adds a site with web servers.
    pub fn add_site(&self, internet: &NetworkNamespace, name: &str) -> Result<WebSite> {
        let _inside = internet.enter()?;
        self.add_site_here(name)
    }

    /// Adds a site with web servers in the calling thread's namespace.
    pub fn add_site_here(&self, name: &str) -> Result<WebSite> {
        let site = self.reserve_site(name)?;
        let _entered = self.runtime.enter();
        for address in site.addresses() {
            web_server::serve(&self.authority, &self.connection_counts, address)?;
        }
        Ok(site)
    }

    /// Adds a name and addresses without servers.
    pub fn reserve_site(&self, name: &str) -> Result<WebSite> {
        let number = self.site_count.fetch_add(1, Ordering::Relaxed);
        let number = number.checked_add(20).context("an internet holds 235 sites")?;
        let ([a, b, c, _], [s, t, u, ..]) = (SITE_NETWORK_V4.octets(), SITE_NETWORK_V6.segments());
        let site = WebSite {
            name: name.to_owned(),
            v4: Ipv4Addr::new(a, b, c, number).into(),
            v6: Ipv6Addr::new(s, t, u, 0, 0, 0, 0, number.into()).into(),
        };
        self.zone.set_answer(name, DnsAnswer::with_addresses(&site.addresses()));
        Ok(site)
    }

    /// Adds a site whose server is the test itself, on a port of the site's IPv4 address.
    pub fn add_manual_site(
        &self,
        internet: &NetworkNamespace,
        name: &str,
        port: u16,
    ) -> Result<(WebSite, TcpListener)> {
        let _inside = internet.enter()?;
        self.add_manual_site_here(name, port)
    }

    /// The same in the calling thread's namespace.
    pub(super) fn add_manual_site_here(
        &self,
        name: &str,
        port: u16,
    ) -> Result<(WebSite, TcpListener)> {
        let site = self.reserve_site(name)?;
        let listener = TcpListener::bind((site.v4, port))
            .with_context(|| format!("TCP {} port {port}", site.v4))?;
        self.zone.set_answer(name, DnsAnswer::with_addresses(&[site.v4]));
        Ok((site, listener))
    }
}
