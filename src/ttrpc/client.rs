// SPDX-License-Identifier: Apache-2.0
//! Calls, any number at once, over one connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use prost::Message;
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    Code, Request, Response, Status,
    frame::{self, Kind},
};

/// One connection to a ttrpc server. Cheap to clone; the connection is closed
/// with the last clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Whole frames: a caller that is cancelled half-way can't tear one.
    frames: mpsc::Sender<BytesMut>,
    calls: Arc<Mutex<Calls>>,
    reader: AbortHandle,
}

/// The calls that wait for their answers.
#[derive(Debug, Default)]
struct Calls {
    next: u32,
    waiting: HashMap<u32, oneshot::Sender<Response>>,
    /// The connection has ended; nothing will be answered any more.
    closed: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Forgets a call whose caller has gone.
struct Forget<'a> {
    calls: &'a Mutex<Calls>,
    stream: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.calls).waiting.remove(&self.stream);
    }
}

fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    // Every update is one insert or remove: a panic elsewhere can't tear it.
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Speaks ttrpc on `stream`. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        let (mut read, mut write) = stream.into_split();
        let calls = Arc::new(Mutex::new(Calls { next: 1, ..Calls::default() }));
        let answers = Arc::clone(&calls);
        let reader = tokio::spawn(async move {
            let mut buffer = BytesMut::new();
            while let Ok(Some(frame)) = frame::read(&mut read, &mut buffer).await {
                if frame.kind != Kind::Response as u8 {
                    continue;
                }
                let Ok(response) = Response::decode(frame.payload) else { break };
                let caller = lock(&answers).waiting.remove(&frame.stream);
                if let Some(caller) = caller {
                    // A caller that has gone doesn't want the answer.
                    drop(caller.send(response));
                }
            }
            let mut calls = lock(&answers);
            calls.closed = true;
            calls.waiting.clear();
        });
        // Ends with the last clone of the client, or when the server has gone;
        // the reader sees the latter too and fails the calls that wait.
        let (frames, mut queue) = mpsc::channel::<BytesMut>(16);
        tokio::spawn(async move {
            while let Some(wire) = queue.recv().await {
                if write.write_all(&wire).await.is_err() {
                    break;
                }
            }
        });
        Self { inner: Arc::new(Inner { frames, calls, reader: reader.abort_handle() }) }
    }

    /// Calls `service/method`. `timeout` is told to the server and kept here;
    /// `None` waits as long as the connection lasts.
    ///
    /// # Errors
    /// The server's own status, `DeadlineExceeded`, or `Unavailable` when the
    /// connection ends first.
    pub async fn call<M: Message, R: Message + Default>(
        &self,
        service: &str,
        method: &str,
        message: &M,
        timeout: Option<Duration>,
    ) -> Result<R, Status> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: message.encode_to_vec(),
            timeout_nano: timeout.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX)),
            metadata: Vec::new(),
        };
        let exchange = self.exchange(&request);
        let response = match timeout {
            None => exchange.await?,
            Some(limit) => tokio::time::timeout(limit, exchange).await.map_err(|_| {
                Status::new(Code::DeadlineExceeded, format!("{method}: no answer within {limit:?}"))
            })??,
        };
        match response.status {
            Some(status) if status.code != 0 => {
                Err(Status::new(Code::from_wire(status.code), status.message))
            }
            _ => R::decode(&*response.payload)
                .map_err(|e| Status::new(Code::Internal, format!("decode the answer of {method}: {e}"))),
        }
    }

    /// Whether the connection has ended: nothing will be answered any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.inner.calls).closed
    }

    async fn exchange(&self, request: &Request) -> Result<Response, Status> {
        let (sender, receiver) = oneshot::channel();
        let stream = {
            let mut calls = lock(&self.inner.calls);
            if calls.closed {
                return Err(closed());
            }
            let stream = calls.next;
            calls.next = stream.wrapping_add(2);
            calls.waiting.insert(stream, sender);
            stream
        };
        let _forget = Forget { calls: &self.inner.calls, stream };
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, stream, Kind::Request, &request.encode_to_vec())
            .map_err(|e| Status::new(Code::ResourceExhausted, e.to_string()))?;
        self.inner.frames.send(wire).await.map_err(|_| closed())?;
        receiver.await.map_err(|_| closed())
    }
}

fn closed() -> Status {
    Status::new(Code::Unavailable, "the connection has ended")
}
