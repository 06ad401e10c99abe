// SPDX-License-Identifier: Apache-2.0
//! `berth top`: the processes of a container, or all containers by use.

use berth::api::v1::TopContainerRequest;

use super::stats;
use crate::{
    cli::manage::Top,
    context::Context,
    error::Result,
    output::{self, table, text},
};

/// Columns are at least so wide, as Docker has it.
const MIN_WIDTH: usize = 20;

/// `berth top`.
pub(super) async fn top(context: &Context, args: Top) -> Result<u8> {
    let Some(container) = args.container else {
        return stats::show(context, Vec::new(), args.all, Some(args.sort), &args.look).await;
    };
    let request =
        TopContainerRequest { namespace: context.namespace.clone(), container, ps_args: args.options };
    let answer = context.client.containers().top(request).await?.into_inner();
    let rows = answer.processes.into_iter().map(|process| process.values);
    // Arguments are any bytes, and a cell ends where a tab is.
    let line = |values: Vec<String>| {
        let cells = values.iter().map(|cell| text::visible(cell).replace(['\t', '\n'], " "));
        cells.collect::<Vec<_>>().join("\t")
    };
    let lines: Vec<String> = std::iter::once(answer.titles).chain(rows).map(line).collect();
    output::print(&table::align_wide(&lines, MIN_WIDTH))?;
    Ok(0)
}
