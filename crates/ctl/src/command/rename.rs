// SPDX-License-Identifier: Apache-2.0
//! `berth rename`.

use berth::api::v1::RenameContainerRequest;

use crate::{cli::manage::Rename, context::Context, error::Result};

/// `berth rename`: says nothing when it is done.
pub(super) async fn rename(context: &Context, args: Rename) -> Result<u8> {
    let request = RenameContainerRequest {
        namespace: context.namespace.clone(),
        container: args.container,
        new_name: args.name,
    };
    context.client.containers().rename(request).await?;
    Ok(0)
}
