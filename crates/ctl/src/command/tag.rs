// SPDX-License-Identifier: Apache-2.0
//! `berth tag`.

use berth::api::v1::TagImageRequest;

use crate::{cli::image::Tag, context::Context, error::Result};

/// `berth tag`: says nothing when it worked.
pub(super) async fn tag(context: &Context, args: Tag) -> Result<u8> {
    let request =
        TagImageRequest { namespace: context.namespace.clone(), source: args.source, target: args.target };
    context.client.images().tag(request).await?;
    Ok(0)
}
