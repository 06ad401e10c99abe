// SPDX-License-Identifier: Apache-2.0
//! The shim's two sockets: containerd's Task service over ttrpc, and attach.
//!
//! Accepts, checks who is there, decodes, asks the supervisor, encodes. Any
//! number of clients may come and go; the container doesn't notice.

mod create;
mod exec;
mod metrics;
mod task;

use std::io;

use berth::ttrpc;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::{JoinSet, yield_now},
};

use self::task::TaskService;
use crate::{
    io::{attach::Client, diag},
    supervisor::{Identity, Supervisor, call::Call},
};

/// Calls that may wait for the supervisor, which never waits itself.
const CALLS: usize = 16;

/// Listens for the engine and for attached clients.
#[derive(Debug)]
pub struct Listeners {
    /// For ttrpc.
    pub ttrpc: UnixListener,
    /// For attach; containerd's shims have none.
    pub attach: Option<UnixListener>,
}

/// Serves one container until the shim is told to end.
pub async fn run(listeners: Listeners, me: Identity) {
    let (calls, queue) = mpsc::channel(CALLS);
    let id = me.id.clone();
    let service = TaskService::new(id, me.bundle.clone(), calls.clone());
    let mut connections = JoinSet::new();
    tokio::select! {
        () = Supervisor::new(me).run(queue) => {}
        () = accept_calls(&listeners.ttrpc, &service, &mut connections) => {}
        () = accept_clients(listeners.attach.as_ref(), &calls) => {}
    }
    // The answer to Shutdown.
    yield_now().await;
    yield_now().await;
    connections.abort_all();
}

/// Never returns.
async fn accept_calls(listener: &UnixListener, service: &TaskService, connections: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            stream = accept(listener) => {
                let service = service.clone();
                connections.spawn_local(async move {
                    if let Err(e) = ttrpc::server::serve(stream, &service).await {
                        diag::warn(format_args!("a connection of the engine: {e}"));
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Never returns.
async fn accept_clients(listener: Option<&UnixListener>, calls: &mpsc::Sender<Call>) {
    let Some(listener) = listener else { return std::future::pending().await };
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            stream = accept(listener) => {
                let calls = calls.clone();
                clients.spawn_local(async move {
                    if let Some(client) = Client::accept(stream).await {
                        // Fails only when the supervisor has ended, and this with it.
                        drop(calls.send(Call::Attach(client)).await);
                    }
                });
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

/// The next connection by root: these sockets give root's power (D14).
async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream))) {
            Ok((0, stream)) => return stream,
            Ok((uid, _)) => diag::warn(format_args!("a connection by user {uid} was refused")),
            Err(e) => {
                // Out of descriptors, most likely: others have to go first.
                diag::warn(format_args!("accept: {e}"));
                if e.kind() != io::ErrorKind::ConnectionAborted {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}
