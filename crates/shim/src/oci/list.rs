// SPDX-License-Identifier: Apache-2.0
//! `list`: all containers below the root.

use std::{fmt::Write as _, fs, os::unix::fs::MetadataExt as _, process::ExitCode};

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb, option, switch},
    print,
    state::Shown,
    store::Known,
};
use crate::init::passwd;

pub(super) const VERB: Verb = Verb {
    name: "list",
    usage: "lists containers started with the given root",
    arguments: "",
    flags: &[
        option("format", "f", "select one of: table or json"),
        switch("quiet", "q", "display only container IDs"),
    ],
    flags_until: usize::MAX,
    takes: (0, 0),
    run: list,
};

fn list(context: &Context, matches: &Matches) -> Outcome {
    let format = matches.text("format")?.unwrap_or("table");
    if !["table", "json"].contains(&format) {
        return Err(Failure::new("invalid format option"));
    }
    let mut all = Vec::new();
    for id in context.store.ids()? {
        match context.store.load(&id) {
            Ok(known) => all.push((id, known)),
            // Made or removed at this moment, or something else altogether.
            Err(failure) => eprintln!("load container {id}: {failure}"),
        }
    }
    let mut rows = Vec::with_capacity(all.len());
    for (id, known) in &all {
        match owner(known).and_then(|owner| Shown::of(id, known, owner)) {
            Ok(shown) => rows.push(shown),
            Err(failure) => eprintln!("status for {id}: {failure}"),
        }
    }
    let text = match format {
        _ if matches.has("quiet") => rows.iter().map(|row| format!("{}\n", row.id)).collect(),
        "json" if rows.is_empty() => "null\n".to_owned(),
        "json" => serde_json::to_string(&rows).map_err(|e| Failure::new(e.to_string()))? + "\n",
        _ => table(&rows),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The name of whose the container is, or its number. A static program can't
/// ask the C library, which would load the host's.
fn owner(known: &Known) -> Result<String, Failure> {
    let metadata = known.entry().dir().metadata().map_err(|e| Failure::io("stat", &e))?;
    let uid = metadata.uid();
    let users = fs::read("/etc/passwd").unwrap_or_default();
    Ok(passwd::name_of(uid, &users).map_or_else(|| format!("#{uid}"), ToOwned::to_owned))
}

/// Columns of at least twelve characters, three spaces between.
fn table(rows: &[Shown<'_>]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let cells = |row: &Shown<'_>| {
        let bundle = row.bundle.display().to_string();
        [
            row.id.to_owned(),
            row.pid.to_string(),
            row.status.to_owned(),
            bundle,
            row.created.to_owned(),
            row.owner.clone(),
        ]
    };
    let lines: Vec<_> = std::iter::once(header).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0) + 3;
    let widths: Vec<usize> = (0..5).map(|column| width(column).max(12)).collect();
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}");
        }
        let _ = writeln!(text, "{}", line[5]);
    }
    text
}
