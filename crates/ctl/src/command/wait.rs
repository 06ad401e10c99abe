// SPDX-License-Identifier: Apache-2.0
//! `berth wait`.

use berth::api::v1::{WaitContainerRequest, wait_container_request::Condition as Wire};

use super::each;
use crate::{
    cli::manage::{Condition, Wait},
    context::Context,
    error::Result,
};

/// `berth wait`: the exit codes, in the order asked for.
pub(super) async fn wait(context: &Context, args: Wait) -> Result<u8> {
    let condition = match args.condition {
        Condition::NotRunning => Wire::NotRunning,
        Condition::NextExit => Wire::NextExit,
        Condition::Removed => Wire::Removed,
    };
    each(args.targets.containers, |name| {
        let request = WaitContainerRequest {
            namespace: context.namespace.clone(),
            container: name,
            condition: condition.into(),
        };
        let mut client = context.client.containers();
        async move { Ok(client.wait(request).await?.into_inner().exit_code.to_string()) }
    })
    .await
}
