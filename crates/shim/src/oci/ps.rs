// SPDX-License-Identifier: Apache-2.0
//! `ps`: the processes of a container, as the host's ps(1) shows them, or
//! their numbers alone.

use std::process::{Command, ExitCode};

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb, option},
    print,
};

pub(super) const VERB: Verb = Verb {
    name: "ps",
    usage: "ps displays the processes running inside a container",
    arguments: "<container-id> [ps options]",
    flags: &[option("format", "f", "select one of: table or json")],
    flags_until: 1,
    takes: (1, usize::MAX),
    run: ps,
};

fn ps(context: &Context, matches: &Matches) -> Outcome {
    let pids = context.store.load(matches.id()?)?.group()?.pids()?;
    match matches.text("format")?.unwrap_or("table") {
        "json" => {
            let text = serde_json::to_string(&pids).map_err(|e| Failure::new(e.to_string()))?;
            print(&(text + "\n"))?;
        }
        "table" => {
            let mut options = matches.arguments(1)?;
            if options.is_empty() {
                options.push("-ef".to_owned());
            }
            print(&rows_of(&all(&options)?, &pids)?)?;
        }
        _ => return Err(Failure::new("invalid format option")),
    }
    Ok(ExitCode::SUCCESS)
}

/// What ps(1) says of all processes of the host.
fn all(options: &[String]) -> Result<String, Failure> {
    let output = Command::new("ps").args(options).output().map_err(|e| Failure::io("ps", &e))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::new(format!("ps: {}: {why}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The title, and the rows of `pids`.
fn rows_of(text: &str, pids: &[u32]) -> Result<String, Failure> {
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let column = title.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Failure::new("couldn't find PID field in ps output"))?;
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: u32| pids.contains(&pid))
    };
    let lines = std::iter::once(title).chain(lines.filter(is_ours));
    Ok(lines.flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_picked_by_the_column_of_the_pid() {
        let text = "USER  PID CMD\nroot  1 init\nroot  12 sh -c 1\nroot 2 x\n";
        assert_eq!(rows_of(text, &[12, 2]).expect("rows"), "USER  PID CMD\nroot  12 sh -c 1\nroot 2 x\n");
        assert!(rows_of("USER CMD\n", &[1]).is_err());
    }
}
