// SPDX-License-Identifier: Apache-2.0
//! `berth container prune`.

use std::io;

use berth::api::v1::{Filter, PruneContainersRequest};

use crate::{
    cli::manage::Prune,
    context::Context,
    error::{Error, Result},
    output::{self, human},
    parse::time,
};

const QUESTION: &str = "WARNING! This will remove all stopped containers.
Are you sure you want to continue? [y/N] ";

/// `berth container prune`.
pub(super) async fn prune(context: &Context, args: Prune) -> Result<u8> {
    let request = request(context.namespace.clone(), args.filter)?;
    if !args.force && !confirmed()? {
        return Ok(0);
    }
    let pruned = context.client.containers().prune(request).await?.into_inner();
    if !pruned.removed.is_empty() {
        output::print(&format!("Deleted Containers:\n{}\n\n", pruned.removed.join("\n")))?;
    }
    output::print(&format!("Total reclaimed space: {}\n", human::size(pruned.space_reclaimed)))?;
    Ok(0)
}

/// Whether the user says so; the end of the input is a no.
fn confirmed() -> Result<bool> {
    output::print(QUESTION)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

fn request(namespace: String, filters: Vec<Filter>) -> Result<PruneContainersRequest> {
    let mut request = PruneContainersRequest { namespace, ..Default::default() };
    for Filter { key, value } in filters {
        match key.as_str() {
            "until" => request.until = Some(time::point(&value)?),
            "label" => request.labels.push(value),
            "label!" => request.without_labels.push(value),
            _ => return Err(Error::new(format!("invalid filter '{key}'"))),
        }
    }
    Ok(request)
}
