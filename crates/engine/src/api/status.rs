// SPDX-License-Identifier: Apache-2.0
//! The one mapping of the engine's errors to gRPC's.

use tonic::{Code, Status, metadata::MetadataMap};

use crate::error::{Error, Kind};

/// An error as a gRPC status: the whole chain as its message, and the exit
/// code for a command line, where there is one, as trailing metadata.
#[must_use]
pub fn to_status(error: &Error) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(code) = error.exit_code() {
        metadata.insert(berth::EXIT_CODE_METADATA, u32::from(code).into());
    }
    Status::with_metadata(code(error.kind()), error.chain(), metadata)
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::Unavailable => Code::Unavailable,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Cancelled => Code::Cancelled,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::DataLoss => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_the_chain_and_the_exit_code_comes_along() {
        let error = Error::new(Kind::FailedPrecondition, "start x").with_source("cause").with_exit_code(127);
        let status = to_status(&error);
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "start x: cause"));
        let code = status.metadata().get(berth::EXIT_CODE_METADATA).expect("metadata");
        assert_eq!(code.to_str().expect("text"), "127");
        assert!(to_status(&Error::new(Kind::NotFound, "x")).metadata().is_empty());
    }
}
