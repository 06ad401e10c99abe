// SPDX-License-Identifier: Apache-2.0
//! `berth pause` and `berth unpause`.

use berth::api::v1::{PauseContainerRequest, UnpauseContainerRequest};

use super::each;
use crate::{cli::container::Containers, context::Context, error::Result};

/// `berth pause`.
pub(super) async fn pause(context: &Context, args: Containers) -> Result<u8> {
    each(args.containers, |name| {
        let request = PauseContainerRequest { namespace: context.namespace.clone(), container: name.clone() };
        let mut client = context.client.containers();
        async move {
            client.pause(request).await?;
            Ok(name)
        }
    })
    .await
}

/// `berth unpause`.
pub(super) async fn unpause(context: &Context, args: Containers) -> Result<u8> {
    each(args.containers, |name| {
        let request =
            UnpauseContainerRequest { namespace: context.namespace.clone(), container: name.clone() };
        let mut client = context.client.containers();
        async move {
            client.unpause(request).await?;
            Ok(name)
        }
    })
    .await
}
