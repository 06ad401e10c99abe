// SPDX-License-Identifier: Apache-2.0
//! `berth logs`.

use std::io::{self, Write};

use berth::api::v1::{LogsRequest, LogsResponse, Stream};

use crate::{
    cli::container::{Logs, Tail},
    context::Context,
    error::Result,
    output::human,
};

/// `berth logs`: each stream of the container to our own of that name.
pub(super) async fn logs(context: &Context, args: Logs) -> Result<u8> {
    let request = LogsRequest {
        namespace: context.namespace.clone(),
        container: args.container,
        follow: args.follow,
        stdout: true,
        stderr: true,
        since: args.since,
        until: args.until,
        tail: match args.tail {
            Tail::All => None,
            Tail::Lines(count) => Some(count),
        },
    };
    let mut stream = context.client.containers().logs(request).await?.into_inner();
    let mut printer = Printer { timestamps: args.timestamps, inside: [false; 2] };
    while let Some(line) = stream.message().await? {
        let mut bytes = Vec::new();
        let is_error = line.stream() == Stream::Stderr;
        printer.line(&line, &mut bytes)?;
        if is_error {
            io::stderr().lock().write_all(&bytes)?;
        } else {
            let mut out = io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()?;
        }
    }
    Ok(0)
}

/// Puts times before lines; a line may come in several parts.
#[derive(Debug)]
struct Printer {
    timestamps: bool,
    /// Whether a line of stdout or stderr has begun and not ended.
    inside: [bool; 2],
}

impl Printer {
    fn line(&mut self, line: &LogsResponse, out: &mut impl Write) -> io::Result<()> {
        let inside = &mut self.inside[usize::from(line.stream() == Stream::Stderr)];
        if self.timestamps
            && !*inside
            && let Some(time) = &line.timestamp
        {
            write!(out, "{} ", human::rfc3339(time))?;
        }
        *inside = !line.data.ends_with(b"\n");
        out.write_all(&line.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_parts_has_one_time() {
        let part = |data: &'static [u8]| LogsResponse {
            stream: Stream::Stdout.into(),
            timestamp: Some(prost_types::Timestamp { seconds: 0, nanos: 1 }),
            data: data.into(),
        };
        let mut printer = Printer { timestamps: true, inside: [false; 2] };
        let mut out = Vec::new();
        for data in [&b"a"[..], b"b\n", b"c\n"] {
            printer.line(&part(data), &mut out).expect("write");
        }
        let time = "1970-01-01T00:00:00.000000001Z";
        assert_eq!(String::from_utf8(out).expect("text"), format!("{time} ab\n{time} c\n"));
    }
}
