// SPDX-License-Identifier: Apache-2.0
//! `berth commit`.

use berth::api::v1::CommitContainerRequest;

use crate::{cli::files::Commit, context::Context, error::Result, output};

/// `berth commit`: the new image's id.
pub(super) async fn commit(context: &Context, args: Commit) -> Result<u8> {
    let request = CommitContainerRequest {
        namespace: context.namespace.clone(),
        container: args.container,
        reference: args.reference.unwrap_or_default(),
        author: args.author.unwrap_or_default(),
        message: args.message.unwrap_or_default(),
        changes: args.change,
        pause: args.pause,
    };
    let made = context.client.containers().commit(request).await?.into_inner();
    output::print(&format!("{}\n", made.image_id))?;
    Ok(0)
}
