// SPDX-License-Identifier: Apache-2.0
//! `berth export`.

use berth::api::v1::ExportContainerRequest;

use super::save::Output;
use crate::{
    cli::files::Export,
    context::Context,
    error::{Error, Result},
    terminal,
};

/// `berth export`.
pub(super) async fn export(context: &Context, args: Export) -> Result<u8> {
    if args.output.is_none() && terminal::stdout_is_terminal() {
        return Err(Error::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let request = ExportContainerRequest { namespace: context.namespace.clone(), container: args.container };
    let mut stream = context.client.containers().export(request).await?.into_inner();
    let mut output = Output::open(args.output.as_deref())?;
    while let Some(part) = stream.message().await? {
        output.write(&part.data)?;
    }
    output.finish()?;
    Ok(0)
}
