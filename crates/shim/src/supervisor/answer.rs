// SPDX-License-Identifier: Apache-2.0
//! What callers are told: results, and errors in ttrpc's words.

use std::io;

use berth::ttrpc::{Code, Status};

use super::call::Reply;
use crate::runtime::{self, Kind};

/// The caller may have gone; then nobody wants the answer.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, Status>) {
    drop(reply.send(result));
}

pub(super) fn internal(what: &str, error: &io::Error) -> Status {
    Status::new(Code::Internal, format!("{what}: {error}"))
}

pub(super) fn status(error: &runtime::Error) -> Status {
    let code = match error.kind() {
        Kind::ExecNotFound | Kind::NotRunning => Code::NotFound,
        Kind::ExecNotPermitted => Code::PermissionDenied,
        Kind::InvalidSpec => Code::InvalidArgument,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Os => Code::Internal,
    };
    Status::new(code, error.to_string())
}
