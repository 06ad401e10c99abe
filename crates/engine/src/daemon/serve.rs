// SPDX-License-Identifier: Apache-2.0
//! The API behind its doors: services with health and reflection, over the
//! unix socket and, with TLS in both directions, over TCP.

use std::{convert::Infallible, fs, path::Path, time::Duration};

use tokio::sync::watch;
use tonic::{
    body::Body,
    codegen::http::{Request, Response},
    server::NamedService,
    service::{Routes, RoutesBuilder},
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Service;

use super::listen::{self, Listeners};
use crate::{
    api::call::CallLayer,
    config::Tcp,
    error::{Context as _, Error, Kind, Result},
};

/// Calls at once on one connection; a client with more waits.
const STREAMS: u32 = 1024;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often a TCP client is asked whether it is still there, and how long it
/// may think.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// The services of the API.
#[derive(Debug, Default)]
pub(super) struct Services {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
}

impl Services {
    /// Adds a service.
    pub(super) fn add<S>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.names.push(S::NAME);
    }

    /// All of them, and the two that tell of them.
    async fn routes(mut self) -> Result<Routes> {
        let (reporter, health) = tonic_health::server::health_reporter();
        self.add(health);
        self.report(&reporter).await;
        let reflection = self.reflection()?;
        self.routes.add_service(reflection);
        Ok(self.routes.routes().prepare())
    }

    async fn report(&self, health: &HealthReporter) {
        for name in &self.names {
            health.set_service_status(name, ServingStatus::Serving).await;
        }
    }

    /// Lists what is served, not all that the descriptors know of.
    fn reflection(
        &self,
    ) -> Result<
        impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + NamedService
        + Clone
        + Send
        + Sync
        + use<>,
    > {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(berth::api::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        for name in &self.names {
            builder = builder.with_service_name(*name);
        }
        builder
            .build_v1()
            .map_err(|e| Error::new(Kind::Internal, "describe the API for reflection").with_source(e))
    }
}

/// Serves until `stop` turns true and every connection is closed.
///
/// # Errors
/// What ends it before.
pub(super) async fn serve(
    listeners: Listeners,
    services: Services,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let Listeners { unix, tcp, file: _file } = listeners;
    let routes = services.routes().await?;
    let unix = server(&stop).serve_with_incoming_shutdown(
        routes.clone(),
        listen::unix_connections(unix),
        stopped(stop.clone()),
    );
    let tcp = async {
        let Some((socket, tls)) = tcp else { return Ok(()) };
        server(&stop)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .tls_config(tls)?
            .serve_with_incoming_shutdown(routes, listen::tcp_connections(socket), stopped(stop.clone()))
            .await
    };
    tokio::try_join!(unix, tcp)
        .map(|_| ())
        .map_err(|e| Error::new(Kind::Internal, "serve the API").with_source(e))
}

fn server(
    stop: &watch::Receiver<bool>,
) -> Server<tower::layer::util::Stack<CallLayer, tower::layer::util::Identity>> {
    Server::builder().max_concurrent_streams(STREAMS).layer(CallLayer::new(stop.clone()))
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error: the sender is gone, and with it the engine.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// TLS that asks clients for a certificate and refuses those without.
///
/// # Errors
/// When a file can't be read.
pub(super) fn tls(tcp: &Tcp) -> Result<ServerTlsConfig> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&tcp.cert)?, read(&tcp.key)?))
        .client_ca_root(Certificate::from_pem(read(&tcp.client_ca)?))
        .client_auth_optional(false)
        .timeout(HANDSHAKE))
}
