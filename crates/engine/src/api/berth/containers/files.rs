// SPDX-License-Identifier: Apache-2.0
//! Files of containers on the wire.

use berth::api::v1::{self, copy_from_response, copy_to_request};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Answers;
use crate::{
    api::status::to_status,
    error::{Error, Kind, Result},
    lifecycle::containers::{Copied, CopyInto, PathStat},
};

pub(super) fn stat(stat: PathStat) -> v1::PathStat {
    let (seconds, nanos) = stat.modified;
    v1::PathStat {
        name: stat.name.into(),
        mode: stat.mode,
        size: stat.size,
        modified: Some(prost_types::Timestamp { seconds, nanos }),
        link_target: stat.link_target.into(),
    }
}

/// What it is, then its archive.
pub(super) fn copied(found: PathStat, data: mpsc::Receiver<Result<Bytes>>) -> Answers<v1::CopyFromResponse> {
    use copy_from_response::Kind as Part;
    let answer = |part| v1::CopyFromResponse { kind: Some(part) };
    let first = stream::once(std::future::ready(Ok(answer(Part::Stat(stat(found))))));
    let data = tokio_stream::wrappers::ReceiverStream::new(data);
    let rest = data.map(move |piece| piece.map(|data| answer(Part::Data(data))).map_err(|e| to_status(&e)));
    Answers { next: Box::pin(first.chain(rest)) }
}

/// The message that opens a copy.
pub(super) async fn open(messages: &mut Streaming<v1::CopyToRequest>) -> Result<copy_to_request::Open> {
    let message = messages.message().await.map_err(|e| broken_off(&e))?;
    match message.and_then(|message| message.kind) {
        Some(copy_to_request::Kind::Open(open)) => Ok(open),
        _ => Err(Error::new(Kind::InvalidArgument, "the first message of CopyTo must be `open`")),
    }
}

pub(super) fn into(open: &copy_to_request::Open) -> CopyInto {
    use v1::copy_to_request::What;
    let what = match open.what() {
        What::Archive => Copied::Archive,
        What::File => Copied::File,
        What::Directory => Copied::Directory,
        What::Contents => Copied::Contents,
    };
    CopyInto { path: open.path.to_vec(), what, keep_owner: open.keep_owner }
}

/// The archive's bytes. It is whole only when the client says so.
pub(super) fn archive(messages: Streaming<v1::CopyToRequest>) -> impl Stream<Item = Result<Bytes>> + Send {
    stream::unfold(Some(messages), |messages| async move {
        let mut messages = messages?;
        let kind = match messages.message().await {
            Ok(message) => message.and_then(|message| message.kind),
            Err(e) => return Some((Err(broken_off(&e)), None)),
        };
        match kind {
            Some(copy_to_request::Kind::Data(data)) => Some((Ok(data), Some(messages))),
            Some(copy_to_request::Kind::End(_)) => None,
            Some(copy_to_request::Kind::Open(_)) => {
                let what = "`open` is the first message of CopyTo, and no other";
                Some((Err(Error::new(Kind::InvalidArgument, what)), None))
            }
            None => Some((Err(Error::new(Kind::Cancelled, "the copy broke off")), None)),
        }
    })
}

fn broken_off(status: &Status) -> Error {
    Error::new(Kind::Cancelled, format!("the copy broke off: {}", status.message()))
}
