// SPDX-License-Identifier: Apache-2.0
//! `berth history`.

use std::time::SystemTime;

use berth::api::v1::{HistoryEntry, InspectImageRequest};

use crate::{
    cli::image::History,
    context::Context,
    error::Result,
    output::{
        self, human,
        listing::{Format, Row},
        text,
    },
    parse::reference::short_id,
};

const TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const TABLE_RAW: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const HEADERS: [(&str, &str); 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];
/// What stands for the steps below the image, which have no image.
const MISSING: &str = "<missing>";
/// Width of a command in a table.
const COMMAND: usize = 45;

/// `berth history`: the newest step first.
pub(super) async fn history(context: &Context, args: History) -> Result<u8> {
    let format = Format::parse(args.format.as_deref(), if args.human { TABLE } else { TABLE_RAW })?;
    let request = InspectImageRequest { namespace: context.namespace.clone(), image: args.image.clone() };
    let answer = context.client.images().inspect(request).await?.into_inner();
    let id = answer.image.unwrap_or_default().id;
    let id = if args.no_trunc { id.as_str() } else { short_id(&id) };
    let steps = answer.history.iter().rev().enumerate();
    let steps = steps.map(|(at, step)| (if at == 0 { id } else { MISSING }, step));
    if args.quiet {
        output::print(&steps.map(|(id, _)| format!("{id}\n")).collect::<String>())?;
        return Ok(0);
    }
    let now = SystemTime::now();
    let rows: Vec<Row> = steps.map(|(id, step)| row(id, step, &args, now)).collect();
    output::print(&format.render(&HEADERS, &rows)?)?;
    Ok(0)
}

fn row(id: &str, step: &HistoryEntry, args: &History, now: SystemTime) -> Row {
    let created = step.created_at.filter(|time| time.seconds > 0);
    let since = created.map(|time| format!("{} ago", human::duration(human::since(&time, now))));
    // A tab would begin another column.
    let command = text::visible(&step.created_by).replace('\t', " ");
    let command = if args.no_trunc { command.into() } else { text::ellipsis(&command, COMMAND) };
    let size = if args.human { human::size(step.size) } else { step.size.to_string() };
    Row::default()
        .with("ID", id)
        .with("CreatedSince", since.unwrap_or_else(|| "N/A".into()))
        .with("CreatedAt", created.map_or_else(|| "N/A".into(), |time| human::rfc3339_seconds(&time)))
        .with("CreatedBy", &*command)
        .with("Size", size)
        .with("Comment", &*text::visible(&step.comment).replace('\t', " "))
}
