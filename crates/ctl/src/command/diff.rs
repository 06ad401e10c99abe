// SPDX-License-Identifier: Apache-2.0
//! `berth diff`.

use berth::api::v1::{DiffContainerRequest, diff_container_response::Kind};

use crate::{
    cli::manage::Diff,
    context::Context,
    error::Result,
    output::{self, text},
};

/// `berth diff`: a line a change, as they come.
pub(super) async fn diff(context: &Context, args: Diff) -> Result<u8> {
    let request = DiffContainerRequest { namespace: context.namespace.clone(), container: args.container };
    let mut pieces = context.client.containers().diff(request).await?.into_inner();
    while let Some(piece) = pieces.message().await? {
        let lines = piece.changes.iter().map(|change| line(change.kind(), &change.path));
        output::print(&lines.collect::<String>())?;
    }
    Ok(0)
}

/// The container chose the name, and this is a line.
fn line(kind: Kind, path: &[u8]) -> String {
    let letter = match kind {
        Kind::Added => 'A',
        Kind::Deleted => 'D',
        Kind::Changed | Kind::Unspecified => 'C',
    };
    let path = String::from_utf8_lossy(path);
    format!("{letter} {}\n", text::visible(&path).replace('\n', "\\n"))
}
