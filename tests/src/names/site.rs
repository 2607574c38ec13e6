//! A site: a name with an address in each family.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    sync::atomic::Ordering,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Names, web, zone::Answer};
use crate::world::{
    Namespace,
    internet::{SITES_V4, SITES_V6},
};

/// What is there to be visited.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
}

impl Site {
    /// Its addresses.
    pub const fn addresses(&self) -> [IpAddr; 2] {
        [self.v4, self.v6]
    }

    /// Whether this page is one of its servers', at whichever address.
    pub fn shows(&self, page: &Value) -> bool {
        self.addresses().iter().any(|address| page["server"] == address.to_string())
    }
}

impl Names {
    /// A new site with web servers.
    pub fn site(&self, internet: &Namespace, name: &str) -> Result<Site> {
        let _inside = internet.enter()?;
        self.site_here(name)
    }

    /// The same in the namespace that the thread is in.
    pub fn site_here(&self, name: &str) -> Result<Site> {
        let site = self.place(name)?;
        let _entered = self.runtime.enter();
        for address in site.addresses() {
            web::serve(&self.authority, &self.visits, address)?;
        }
        Ok(site)
    }

    /// A new name and addresses where nothing listens yet.
    pub fn place(&self, name: &str) -> Result<Site> {
        let number = self.sites.fetch_add(1, Ordering::Relaxed);
        let number = number.checked_add(20).context("an internet holds 235 sites")?;
        let ([a, b, c, _], [s, t, u, ..]) = (SITES_V4.octets(), SITES_V6.segments());
        let site = Site {
            name: name.to_owned(),
            v4: Ipv4Addr::new(a, b, c, number).into(),
            v6: Ipv6Addr::new(s, t, u, 0, 0, 0, 0, number.into()).into(),
        };
        self.zone.set(name, Answer::of(&site.addresses()));
        Ok(site)
    }

    /// A new site of which the test itself is the server, at a port of its IPv4 address.
    pub fn own_site(
        &self,
        internet: &Namespace,
        name: &str,
        port: u16,
    ) -> Result<(Site, TcpListener)> {
        let _inside = internet.enter()?;
        let site = self.place(name)?;
        let listener = TcpListener::bind((site.v4, port))
            .with_context(|| format!("TCP {} port {port}", site.v4))?;
        self.zone.set(name, Answer::of(&[site.v4]));
        Ok((site, listener))
    }
}
