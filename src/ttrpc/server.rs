// SPDX-License-Identifier: Apache-2.0
//! A connection's requests, each answered when its call returns.
//!
//! Nothing here spawns: all calls of a connection are driven by the future of
//! [`serve`], so a single-threaded shim needs no `Send` and no locks.

use std::{future::Future, io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use prost::Message;
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::{
    Code, Request, Response, Status, WireStatus,
    frame::{self, Kind},
};

/// Most calls of one connection that may be under way; a further one is
/// answered `ResourceExhausted`. Waits are calls too.
const MAX_CALLS: usize = 1024;

/// What a server does with a call.
pub trait Service {
    /// Answers `service/method` with an encoded message.
    ///
    /// # Errors
    /// The status to send; `Unimplemented` for an unknown method.
    fn call(
        &self,
        service: &str,
        method: &str,
        payload: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, Status>>;
}

/// Decodes a call's message.
///
/// # Errors
/// `InvalidArgument` when `payload` is not an `M`.
pub fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(|e| Status::new(Code::InvalidArgument, format!("decode the request: {e}")))
}

/// Serves one connection until the client closes it.
///
/// # Errors
/// Those of the connection, and `InvalidData` for bytes that are not ttrpc.
pub async fn serve(stream: UnixStream, service: &impl Service) -> io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let mut buffer = BytesMut::new();
    let mut calls = FuturesUnordered::new();
    loop {
        let (stream, answer) = tokio::select! {
            Some(answered) = calls.next(), if !calls.is_empty() => answered,
            frame = frame::read(&mut read, &mut buffer) => {
                let Some(frame) = frame? else { return Ok(()) };
                if frame.kind != Kind::Request as u8 {
                    (frame.stream, Err(Status::new(Code::InvalidArgument, "only unary requests are understood")))
                } else if calls.len() >= MAX_CALLS {
                    (frame.stream, Err(Status::new(Code::ResourceExhausted, "too many calls under way")))
                } else {
                    calls.push(answer(frame.stream, frame.payload, service));
                    continue;
                }
            }
        };
        write.write_all(&encode(stream, answer)?).await?;
    }
}

async fn answer(stream: u32, payload: Bytes, service: &impl Service) -> (u32, Result<Vec<u8>, Status>) {
    let request = match decode::<Request>(&payload) {
        Ok(request) => request,
        Err(status) => return (stream, Err(status)),
    };
    let call = service.call(&request.service, &request.method, &request.payload);
    let result = match u64::try_from(request.timeout_nano) {
        Err(_) | Ok(0) => call.await,
        Ok(nanos) => tokio::time::timeout(Duration::from_nanos(nanos), call)
            .await
            .unwrap_or_else(|_| Err(Status::new(Code::DeadlineExceeded, "the caller's time is up"))),
    };
    (stream, result)
}

fn encode(stream: u32, result: Result<Vec<u8>, Status>) -> io::Result<BytesMut> {
    let response = match result {
        Ok(payload) => Response { status: None, payload },
        Err(status) => Response {
            status: Some(WireStatus { code: status.code as i32, message: status.message }),
            payload: Vec::new(),
        },
    };
    let mut wire = BytesMut::new();
    frame::encode(&mut wire, stream, Kind::Response, &response.encode_to_vec())?;
    Ok(wire)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::task::{ConnectRequest, ConnectResponse};
    use crate::ttrpc::client::Client;

    struct Echo;

    impl Service for Echo {
        async fn call(&self, service: &str, method: &str, payload: &[u8]) -> Result<Vec<u8>, Status> {
            match (service, method) {
                ("s", "Echo") => {
                    let request: ConnectRequest = decode(payload)?;
                    Ok(ConnectResponse { version: request.id, ..Default::default() }.encode_to_vec())
                }
                ("s", "Hang") => std::future::pending().await,
                _ => Err(Status::new(Code::Unimplemented, format!("{service}/{method}"))),
            }
        }
    }

    fn pair() -> (Client, impl Future<Output = io::Result<()>>) {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        (Client::new(ours), async move { serve(theirs, &Echo).await })
    }

    async fn echo(client: &Client, text: &str) -> Result<ConnectResponse, Status> {
        client.call("s", "Echo", &ConnectRequest { id: text.to_owned() }, None).await
    }

    #[tokio::test]
    async fn calls_share_a_connection_and_a_hanging_one_blocks_nobody() {
        let (client, server) = pair();
        tokio::select! {
            r = server => panic!("server ended: {r:?}"),
            () = async {
                let nothing = ConnectRequest::default();
                let hang = client.call::<_, ConnectResponse>(
                    "s", "Hang", &nothing, Some(Duration::from_millis(50)));
                let (a, b, hung) = tokio::join!(echo(&client, "a"), echo(&client, "b"), hang);
                assert_eq!(a.expect("answer").version, "a");
                assert_eq!(b.expect("answer").version, "b");
                assert_eq!(hung.expect_err("no answer").code, Code::DeadlineExceeded);
            } => {}
        }
    }

    #[tokio::test]
    async fn an_unknown_method_is_unimplemented() {
        let (client, server) = pair();
        tokio::select! {
            r = server => panic!("server ended: {r:?}"),
            () = async {
                let answer: Result<ConnectResponse, _> =
                    client.call("s", "Nope", &ConnectRequest::default(), None).await;
                assert_eq!(answer.expect_err("unknown").code, Code::Unimplemented);
            } => {}
        }
    }

    #[tokio::test]
    async fn a_server_that_goes_away_fails_the_calls_that_wait() {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let client = Client::new(ours);
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { echo(&client, "x").await }
        });
        drop(theirs);
        assert_eq!(waiting.await.expect("join").expect_err("closed").code, Code::Unavailable);
        assert_eq!(echo(&client, "y").await.expect_err("closed").code, Code::Unavailable);
    }
}
