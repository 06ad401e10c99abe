// SPDX-License-Identifier: Apache-2.0
//! `berth wait`.

use berth::api::v1::WaitContainerRequest;

use super::each;
use crate::{cli::container::Containers, context::Context, error::Result};

/// `berth wait`: the exit codes, in the order asked for.
pub(super) async fn wait(context: &Context, args: Containers) -> Result<u8> {
    each(args.containers, |name| {
        let request =
            WaitContainerRequest { namespace: context.namespace.clone(), container: name, condition: 0 };
        let mut client = context.client.containers();
        async move { Ok(client.wait(request).await?.into_inner().exit_code.to_string()) }
    })
    .await
}
