// SPDX-License-Identifier: Apache-2.0
//! A panic in one request is that request's failure (D20).

use std::{any::Any, future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use tonic::{Response, Status};

use super::status::to_status;
use crate::error::Result;

/// Runs a handler: its error becomes a status, and so does its panic.
///
/// # Errors
/// The handler's, or `INTERNAL` when it panicked.
pub async fn contained<T>(handler: impl Future<Output = Result<T>>) -> Result<Response<T>, Status> {
    match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(Ok(answer)) => Ok(Response::new(answer)),
        Ok(Err(error)) => Err(to_status(&error)),
        Err(panic) => {
            let what = message(panic.as_ref());
            tracing::error!(panic = what, "a request handler panicked");
            Err(Status::internal(format!("the engine failed on this request: {what}")))
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let status = contained::<()>(async { panic!("oh {}", "no") }).await.expect_err("status");
        assert_eq!(status.code(), tonic::Code::Internal);
        assert!(status.message().ends_with("oh no"), "{}", status.message());
    }
}
