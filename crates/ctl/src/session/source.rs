// SPDX-License-Identifier: Apache-2.0
//! Where a session's output comes from: an attachment, or, after the engine
//! was away, the log.

use berth::api::v1::{
    AttachRequest, AttachResponse, LogsRequest, LogsResponse, StdinClosed, Stream, attach_request,
    attach_response::Kind,
};
use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Options, piece_of, request};
use crate::{
    context::Context,
    error::{Error, Result},
};

/// Messages on their way to the engine.
const QUEUE: usize = 4;

/// What comes from a container.
#[derive(Debug)]
pub(super) enum Piece {
    Output(Stream, Bytes),
    /// So many bytes are missing here.
    Missed(u64),
}

#[derive(Debug)]
pub(super) enum Source {
    Attached(Streaming<AttachResponse>),
    /// The log, without the bytes that were printed before.
    Log {
        stream: Streaming<LogsResponse>,
        skip: [u64; 2],
    },
}

impl Source {
    /// The next piece of output; `None` at the end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>> {
        loop {
            let (stream, data) = match self {
                Self::Attached(stream) => match stream.message().await? {
                    None => return Ok(None),
                    Some(answer) => match piece_of(answer.kind) {
                        None => continue,
                        Some(Piece::Output(stream, data)) => (stream, data),
                        Some(missed) => return Ok(Some(missed)),
                    },
                },
                Self::Log { stream, skip } => match stream.message().await? {
                    None => return Ok(None),
                    Some(line) => {
                        let stream = line.stream();
                        let mut data = line.data;
                        skip_front(&mut data, &mut skip[usize::from(stream == Stream::Stderr)]);
                        (stream, data)
                    }
                },
            };
            if !data.is_empty() {
                return Ok(Some(Piece::Output(stream, data)));
            }
        }
    }
}

/// Takes off the front of `data` what is still to be skipped.
fn skip_front(data: &mut Bytes, skip: &mut u64) {
    let now = usize::try_from(*skip).unwrap_or(usize::MAX).min(data.len());
    data.advance(now);
    *skip -= now as u64;
}

/// Attaches, and returns once the engine has said that no output is missed.
pub(super) async fn attach(
    context: &Context,
    id: &str,
    options: &Options,
    stdin: bool,
) -> Result<(Source, mpsc::Sender<AttachRequest>)> {
    let (requests, queue) = mpsc::channel(QUEUE);
    let open = attach_request::Open {
        namespace: context.namespace.clone(),
        container: id.to_owned(),
        stdin,
        stdout: options.stdout,
        stderr: options.stderr,
        logs: options.logs,
        next_start: options.next_start,
        wait: options.wait,
    };
    requests
        .try_send(request(attach_request::Kind::Open(open)))
        .map_err(|_| Error::new("the request queue is full"))?;
    let mut stream = context.client.containers().attach(ReceiverStream::new(queue)).await?.into_inner();
    match stream.message().await? {
        Some(AttachResponse { kind: Some(Kind::Attached(_)) }) => Ok((Source::Attached(stream), requests)),
        _ => Err(Error::new("the engine did not confirm the attachment")),
    }
}

/// Follows the log from its first byte, without what was printed already.
pub(super) async fn log(context: &Context, id: &str, options: &Options, skip: [u64; 2]) -> Result<Source> {
    let request = LogsRequest {
        namespace: context.namespace.clone(),
        container: id.to_owned(),
        follow: true,
        stdout: options.stdout,
        stderr: options.stderr,
        since: None,
        until: None,
        tail: None,
        ..LogsRequest::default()
    };
    let stream = context.client.containers().logs(request).await?.into_inner();
    Ok(Source::Log { stream, skip })
}

pub(super) fn stdin(bytes: &[u8]) -> AttachRequest {
    request(attach_request::Kind::Stdin(Bytes::copy_from_slice(bytes)))
}

pub(super) fn stdin_closed() -> AttachRequest {
    request(attach_request::Kind::StdinClosed(StdinClosed {}))
}

pub(super) fn is_stdin_closed(message: &AttachRequest) -> bool {
    matches!(message.kind, Some(attach_request::Kind::StdinClosed(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_is_skipped_across_lines() {
        let mut skip = 5;
        let mut first = Bytes::from_static(b"abc");
        skip_front(&mut first, &mut skip);
        assert_eq!((&first[..], skip), (&b""[..], 2));
        let mut second = Bytes::from_static(b"defg");
        skip_front(&mut second, &mut skip);
        assert_eq!((&second[..], skip), (&b"fg"[..], 0));
    }
}
