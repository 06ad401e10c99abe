// SPDX-License-Identifier: Apache-2.0
//! `berth port`. Containers have no network of their own yet, so that there is
//! never a port to list; what is asked for is answered as for one without.

use berth::api::v1::InspectContainerRequest;

use crate::{
    cli::manage::Port,
    context::Context,
    error::{Error, Result},
};

/// `berth port`.
pub(super) async fn port(context: &Context, args: Port) -> Result<u8> {
    let request =
        InspectContainerRequest { namespace: context.namespace.clone(), container: args.container.clone() };
    context.client.containers().inspect(request).await?;
    match args.port {
        None => Ok(0),
        Some(port) => Err(Error::new(format!("no public port '{port}' published for {}", args.container))),
    }
}
