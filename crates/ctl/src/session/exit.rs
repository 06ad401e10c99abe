// SPDX-License-Identifier: Apache-2.0
//! How a container ended, also when it is gone by the time we ask.

use std::{fmt, future::Future, pin::Pin};

use berth::api::v1::{
    Filter, SubscribeRequest, WaitContainerRequest, subscribe_response, wait_container_request::Condition,
};
use nix::sys::signal::Signal;
use tonic::Code;

use crate::{
    context::Context,
    error::{Error, Result},
};

/// The exit code to come.
pub struct Exit(Pin<Box<dyn Future<Output = Result<u8>>>>);

impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exit")
    }
}

impl Exit {
    /// Of a container that is running, or has exited since.
    #[must_use]
    pub fn of(context: &Context, id: &str) -> Self {
        Self::when(context, id, Condition::NotRunning)
    }

    /// Of a container that removes itself: answers once it is gone. May be
    /// asked for before it starts.
    #[must_use]
    pub fn of_removed(context: &Context, id: &str) -> Self {
        Self::when(context, id, Condition::Removed)
    }

    fn when(context: &Context, id: &str, condition: Condition) -> Self {
        Self(Box::pin(wait(context.clone(), id.to_owned(), condition)))
    }

    /// Waits for it. Cancel-safe; not to be called again once it has
    /// answered.
    pub async fn wait(&mut self) -> Result<u8> {
        self.0.as_mut().await
    }

    /// Sends the request on its way without waiting for the answer.
    pub async fn begin(&mut self) -> Option<Result<u8>> {
        tokio::select! {
            biased;
            result = self.wait() => Some(result),
            () = tokio::task::yield_now() => None,
        }
    }
}

async fn wait(context: Context, id: String, condition: Condition) -> Result<u8> {
    let request = WaitContainerRequest {
        namespace: context.namespace.clone(),
        container: id.clone(),
        condition: condition.into(),
    };
    match context.client.containers().wait(request).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            if !answer.error.is_empty() {
                crate::output::warn(&format!("Error response from engine: {}", answer.error));
            }
            Ok(code(answer.exit_code))
        }
        // Removed before the engine got to our request. What happened to it
        // is on record.
        Err(status) if status.code() == Code::NotFound => match from_events(&context, &id).await? {
            Some(code) => Ok(code),
            None => Err(Error::from(status)),
        },
        Err(status) => Err(status.into()),
    }
}

/// The exit code of the container's last `die` event.
async fn from_events(context: &Context, id: &str) -> Result<Option<u8>> {
    let filter = |key: &str, value: &str| Filter { key: key.into(), value: value.into() };
    let request = SubscribeRequest {
        namespace: context.namespace.clone(),
        after: None,
        since: Some(prost_types::Timestamp::default()),
        until: Some(std::time::SystemTime::now().into()),
        filters: vec![filter("type", "container"), filter("container", id), filter("event", "die")],
    };
    let mut stream = context.client.events().subscribe(request).await?.into_inner();
    let mut found = None;
    while let Some(answer) = stream.message().await? {
        if let Some(subscribe_response::Kind::Event(event)) = answer.kind {
            found = event.attributes.get("exitCode").and_then(|text| text.parse().ok()).map(code).or(found);
        }
    }
    Ok(found)
}

fn code(status: u32) -> u8 {
    u8::try_from(status & 0xff).unwrap_or(u8::MAX)
}

/// What a shell reports for a process that a signal has ended.
pub(super) fn of_signal(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}
