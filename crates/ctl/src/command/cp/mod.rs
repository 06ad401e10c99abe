// SPDX-License-Identifier: Apache-2.0
//! `berth cp`: which end is the container's, and what is said at the end. Each
//! way has a file.

mod inward;
mod outward;

use crate::{
    cli::files::Cp,
    context::Context,
    error::{Error, Result},
    output::{self, human},
    terminal,
};

/// One of the two paths.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Container {
        name: String,
        path: String,
    },
    Here(String),
    /// `-`: stdin or stdout.
    Stream,
}

impl End {
    /// As Docker reads it: what begins with a slash or a dot is a path here,
    /// whatever colons there are in it.
    fn parse(text: &str) -> Self {
        if text == "-" {
            return Self::Stream;
        }
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['/', '.']) && !name.is_empty() => {
                Self::Container { name: name.to_owned(), path: path.to_owned() }
            }
            _ => Self::Here(text.to_owned()),
        }
    }
}

/// Whether this can be done at all: known before anybody is asked.
///
/// # Errors
/// In Docker's words.
pub(super) fn check(args: &Cp) -> Result<()> {
    for (path, which) in [(&args.source, "source"), (&args.destination, "destination")] {
        if path.is_empty() {
            return Err(Error::new(format!("{which} can not be empty")));
        }
    }
    match (End::parse(&args.source), End::parse(&args.destination)) {
        (End::Container { .. }, End::Container { .. }) => {
            Err(Error::new("copying between containers is not supported"))
        }
        (End::Container { .. }, _) | (_, End::Container { .. }) => Ok(()),
        _ => Err(Error::new("must specify at least one container source")),
    }
}

/// `berth cp`.
pub(super) async fn cp(context: &Context, args: Cp) -> Result<u8> {
    check(&args)?;
    let quiet = args.quiet || !terminal::stdout_is_terminal();
    let copied = match (End::parse(&args.source), End::parse(&args.destination)) {
        (End::Container { name, path }, End::Stream) => {
            outward::to_stdout(context, name, path, args.follow_link).await?;
            return Ok(0);
        }
        (End::Container { name, path }, End::Here(to)) => {
            outward::to_path(context, name, path, &to, &args).await?
        }
        (End::Stream, End::Container { name, path }) => inward::from_stdin(context, name, path).await?,
        (End::Here(from), End::Container { name, path }) => {
            inward::from_path(context, &from, name, path, &args).await?
        }
        // It was checked.
        _ => 0,
    };
    if !quiet {
        output::warn(&format!("Successfully copied {} to {}", human::size(copied), args.destination));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_here_begins_with_a_slash_or_a_dot() {
        let container = |name: &str, path: &str| End::Container { name: name.into(), path: path.into() };
        for (text, end) in [
            ("c:/x", container("c", "/x")),
            ("c:", container("c", "")),
            ("c:a:b", container("c", "a:b")),
            ("/a:b", End::Here("/a:b".into())),
            ("./a:b", End::Here("./a:b".into())),
            (":x", End::Here(":x".into())),
            ("x", End::Here("x".into())),
            ("-", End::Stream),
        ] {
            assert_eq!(End::parse(text), end, "{text}");
        }
    }
}
