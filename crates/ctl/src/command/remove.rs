// SPDX-License-Identifier: Apache-2.0
//! `berth rm` and `berth rmi`.

use berth::api::v1::{RemoveContainerRequest, RemoveImageRequest};
use tonic::Code;

use super::each;
use crate::{
    cli::{container::Rm, image::Rmi},
    context::Context,
    error::{Error, Result},
    output,
};

/// `berth rm`.
pub(super) async fn rm(context: &Context, args: Rm) -> Result<u8> {
    each(args.targets.containers, |name| {
        let request = RemoveContainerRequest {
            namespace: context.namespace.clone(),
            container: name.clone(),
            force: args.force,
        };
        let mut client = context.client.containers();
        let force = args.force;
        async move {
            match client.remove(request).await {
                Ok(_) => Ok(name),
                Err(status) if force && status.code() == Code::NotFound => {
                    output::warn(&Error::from(status).to_string());
                    Ok(String::new())
                }
                Err(status) => Err(status.into()),
            }
        }
    })
    .await
}

/// `berth rmi`. One after the other: names of one image depend on each other.
pub(super) async fn rmi(context: &Context, args: Rmi) -> Result<u8> {
    let mut code = 0;
    for image in args.images {
        let request = RemoveImageRequest { namespace: context.namespace.clone(), image, force: args.force };
        match context.client.images().remove(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let untagged = answer.untagged.iter().map(|name| format!("Untagged: {name}\n"));
                let deleted = answer.deleted.iter().map(|digest| format!("Deleted: {digest}\n"));
                output::print(&untagged.chain(deleted).collect::<String>())?;
            }
            Err(status) => {
                if !(args.force && status.code() == Code::NotFound) {
                    code = crate::error::FAILED;
                }
                output::warn(&Error::from(status).to_string());
            }
        }
    }
    Ok(code)
}
