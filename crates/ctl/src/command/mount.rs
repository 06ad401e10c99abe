// SPDX-License-Identifier: Apache-2.0
//! `berth image mount` and `berth image unmount`.

use berth::api::v1::{ListImageMountsRequest, MountImageRequest, UnmountImageRequest};

use crate::{
    cli::image::{Mount, Unmount},
    context::Context,
    error::Result,
    output::{self, table},
    parse::{reference::short_id, volume::absolute},
};

/// `berth image mount`: without arguments a list.
pub(super) async fn mount(context: &Context, args: Mount) -> Result<u8> {
    let namespace = context.namespace.clone();
    let (Some(image), Some(directory)) = (args.image, args.directory) else {
        let request = ListImageMountsRequest { namespace };
        let mounts = context.client.images().list_mounts(request).await?.into_inner().mounts;
        let mut lines = vec!["IMAGE ID\tPATH".to_owned()];
        lines.extend(mounts.iter().map(|mount| format!("{}\t{}", short_id(&mount.image_id), mount.path)));
        output::print(&table::align(&lines))?;
        return Ok(0);
    };
    let request = MountImageRequest { namespace, image, path: absolute(&directory.to_string_lossy())? };
    let mounted = context.client.images().mount(request).await?.into_inner();
    output::print(&(mounted.path + "\n"))?;
    Ok(0)
}

/// `berth image unmount`.
pub(super) async fn unmount(context: &Context, args: Unmount) -> Result<u8> {
    super::each(args.directories, |directory| {
        let (client, namespace, force) = (context.client.images(), context.namespace.clone(), args.force);
        async move {
            let (mut client, path) = (client, absolute(&directory)?);
            client.unmount(UnmountImageRequest { namespace, path, force }).await?;
            Ok(directory)
        }
    })
    .await
}
