// SPDX-License-Identifier: Apache-2.0
//! `berth stop`, `berth restart` and `berth kill`.

use berth::api::v1::{KillContainerRequest, RestartContainerRequest, StopContainerRequest};

use super::each;
use crate::{
    cli::container::{Kill, Stop},
    context::Context,
    error::Result,
};

/// `berth stop`: all at once.
pub(super) async fn stop(context: &Context, args: Stop) -> Result<u8> {
    each(args.targets.containers, |name| {
        let request = StopContainerRequest {
            namespace: context.namespace.clone(),
            container: name.clone(),
            signal: args.signal.clone().unwrap_or_default(),
            timeout: args.timeout,
        };
        let mut client = context.client.containers();
        async move {
            client.stop(request).await?;
            Ok(name)
        }
    })
    .await
}

/// `berth restart`: all at once.
pub(super) async fn restart(context: &Context, args: Stop) -> Result<u8> {
    each(args.targets.containers, |name| {
        let request = RestartContainerRequest {
            namespace: context.namespace.clone(),
            container: name.clone(),
            signal: args.signal.clone().unwrap_or_default(),
            timeout: args.timeout,
        };
        let mut client = context.client.containers();
        async move {
            client.restart(request).await?;
            Ok(name)
        }
    })
    .await
}

/// `berth kill`.
pub(super) async fn kill(context: &Context, args: Kill) -> Result<u8> {
    each(args.targets.containers, |name| {
        let request = KillContainerRequest {
            namespace: context.namespace.clone(),
            container: name.clone(),
            signal: args.signal.clone(),
        };
        let mut client = context.client.containers();
        async move {
            client.kill(request).await?;
            Ok(name)
        }
    })
    .await
}
