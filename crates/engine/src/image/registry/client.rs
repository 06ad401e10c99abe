// SPDX-License-Identifier: Apache-2.0
//! HTTP clients: one per trust, which keeps its connections, and the proxies
//! that they go through.

use std::{
    collections::HashMap,
    env, fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Certificate, Client, Identity, NoProxy, Proxy};

use super::{hosts::Trust, identities};
use crate::error::{Error, Kind, Result};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// This machine is never reached through a proxy.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// Proxies, as the environment names them.
#[derive(Clone, Default)]
pub(super) struct Proxies {
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `ALL_PROXY`.
    pub all: Option<String>,
    /// `NO_PROXY`: names, domains, addresses and networks, by commas.
    pub none: String,
}

/// A proxy's URL may have a password in it.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("none", &self.none).finish_non_exhaustive()
    }
}

impl Proxies {
    pub(super) fn from_environment() -> Self {
        let get = |name: &str| {
            let either = env::var(name).or_else(|_| env::var(name.to_ascii_lowercase()));
            either.ok().filter(|value| !value.is_empty())
        };
        let none = get("NO_PROXY").unwrap_or_default();
        Self { http: get("HTTP_PROXY"), https: get("HTTPS_PROXY"), all: get("ALL_PROXY"), none }
    }

    fn proxies(&self) -> Result<Vec<Proxy>> {
        let none = NoProxy::from_string(&format!("{LOOPBACK},{}", self.none));
        let given = [
            ("HTTP_PROXY", self.http.as_ref().map(Proxy::http)),
            ("HTTPS_PROXY", self.https.as_ref().map(Proxy::https)),
            ("ALL_PROXY", self.all.as_ref().map(Proxy::all)),
        ];
        given
            .into_iter()
            .filter_map(|(name, proxy)| Some((name, proxy?)))
            .map(|(name, proxy)| match proxy {
                Ok(proxy) => Ok(proxy.no_proxy(none.clone())),
                Err(_) => {
                    let words = format!("the environment's {name} is no proxy: want http://HOST:PORT");
                    Err(Error::new(Kind::InvalidArgument, words))
                }
            })
            .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    trust: Trust,
    /// Its answers may be long in coming.
    uploads: bool,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    stall: Duration,
    proxies: Proxies,
    made: Mutex<HashMap<Key, Client>>,
}

/// The clients of one place.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    /// For the place itself.
    pub own: Client,
    /// For wherever it sends us, which isn't shown who we are.
    pub others: Client,
}

impl Clients {
    /// A transfer may stand still for `stall`.
    pub(super) fn new(stall: Duration, proxies: Proxies) -> Self {
        Self { stall, proxies, made: Mutex::default() }
    }

    /// Blocks: a client reads the system's authorities.
    pub(super) fn pair(&self, trust: &Trust, uploads: bool) -> Result<Pair> {
        let nobody = Trust { identities: Vec::new(), ..trust.clone() };
        Ok(Pair { own: self.get(trust, uploads)?, others: self.get(&nobody, uploads)? })
    }

    fn get(&self, trust: &Trust, uploads: bool) -> Result<Client> {
        let key = Key { trust: trust.clone(), uploads };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let client = self.build(&key)?;
        made.insert(key, client.clone());
        Ok(client)
    }

    fn build(&self, key: &Key) -> Result<Client> {
        let mut builder = Client::builder()
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .tls_danger_accept_invalid_certs(key.trust.insecure);
        if !key.uploads {
            builder = builder.read_timeout(self.stall);
        }
        for proxy in self.proxies.proxies()? {
            builder = builder.proxy(proxy);
        }
        for pem in &key.trust.authorities {
            let certificates = Certificate::from_pem_bundle(pem).map_err(|e| bad("authorities", e))?;
            builder = builder.tls_certs_merge(certificates);
        }
        builder = match &key.trust.identities[..] {
            [] => builder,
            [pem] => builder.identity(Identity::from_pem(pem).map_err(|e| bad("client certificate", e))?),
            _ => builder.tls_backend_preconfigured(identities::config(&key.trust)?),
        };
        builder.build().map_err(|e| Error::new(Kind::Internal, "set up the registry client").with_source(e))
    }
}

pub(super) fn bad(what: &str, e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::InvalidArgument, format!("read the {what} of a registry")).with_source(e)
}
