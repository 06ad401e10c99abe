// SPDX-License-Identifier: Apache-2.0
//! `berth logs`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use berth::api::v1::{
    LogsRequest, LogsResponse, Stream,
    logs_response::{Gap, gap::Reason},
};
use tokio::time;

use crate::{
    cli::container::{Logs, Tail},
    context::Context,
    error::Result,
    output::{self, human},
};

/// How long the engine may be away from one who follows.
const AWAY: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// `berth logs`: each stream of the container to our own of that name. An
/// engine that is restarted is no reason to stop, nor to print a line twice.
pub(super) async fn logs(context: &Context, args: Logs) -> Result<u8> {
    let mut request = LogsRequest {
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
        after: None,
        details: args.details,
    };
    let mut printer = Printer { timestamps: args.timestamps, details: args.details, inside: [false; 2] };
    let mut context = context.clone();
    let mut deadline = None;
    loop {
        let before = request.after;
        let result = follow(&context, &mut request, &mut printer).await;
        let Err(error) = result else { return Ok(0) };
        // The first attempt finds out whether there is an engine at all.
        if !args.follow || !error.is_lost() || request.after.is_none() {
            return Err(error);
        }
        if request.after != before {
            deadline = None;
        }
        let until = *deadline.get_or_insert_with(|| time::Instant::now() + AWAY);
        loop {
            if time::Instant::now() >= until {
                return Err(error);
            }
            time::sleep(PAUSE).await;
            if let Ok(again) = context.reconnect().await {
                context = again;
                break;
            }
        }
    }
}

/// Prints what comes, and remembers in `request` where to go on.
async fn follow(context: &Context, request: &mut LogsRequest, printer: &mut Printer) -> Result<()> {
    let mut stream = context.client.containers().logs(request.clone()).await?.into_inner();
    while let Some(line) = stream.message().await? {
        print(printer, &line)?;
        if let Some(place) = line.next {
            request.after = Some(place);
            request.tail = None;
        }
    }
    Ok(())
}

fn print(printer: &mut Printer, line: &LogsResponse) -> Result<()> {
    if let Some(gap) = &line.gap {
        output::warn(&format!("berth: {}", missing(gap)));
        return Ok(());
    }
    if line.data.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    printer.line(line, &mut bytes)?;
    if line.stream() == Stream::Stderr {
        io::stderr().lock().write_all(&bytes)?;
    } else {
        let mut out = io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()?;
    }
    Ok(())
}

/// What isn't in the log, for people.
fn missing(gap: &Gap) -> String {
    match gap.reason() {
        Reason::Dropped => {
            format!("{} lines ({} bytes) are missing here: they could not be written", gap.lines, gap.bytes)
        }
        Reason::Damaged if gap.bytes == 0 => "a part of the log is damaged here".to_owned(),
        Reason::Damaged => format!("{} bytes of the log are damaged here", gap.bytes),
        Reason::Rotated => {
            format!("{} segments of the log are missing here: they were rotated away", gap.segments)
        }
        Reason::Unspecified => "something is missing here".to_owned(),
    }
}

/// Puts times and details before lines; a line may come in several parts.
#[derive(Debug)]
struct Printer {
    timestamps: bool,
    details: bool,
    /// Whether a line of stdout or stderr has begun and not ended.
    inside: [bool; 2],
}

impl Printer {
    fn line(&mut self, line: &LogsResponse, out: &mut impl Write) -> io::Result<()> {
        let inside = &mut self.inside[usize::from(line.stream() == Stream::Stderr)];
        if !*inside {
            if self.timestamps
                && let Some(time) = &line.timestamp
            {
                write!(out, "{} ", human::rfc3339(time))?;
            }
            if self.details {
                write!(out, "{} ", details(line))?;
            }
        }
        *inside = !line.data.ends_with(b"\n");
        out.write_all(&line.data)
    }
}

/// `name=value,name=value`, sorted, as Docker prints them.
fn details(line: &LogsResponse) -> String {
    let sorted: BTreeMap<_, _> = line.attributes.iter().collect();
    let pairs: Vec<_> =
        sorted.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.join(",")
}

/// As a part of a URL's query.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            // A String takes all.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
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
            attributes: [("b", "x y,z"), ("a", "ü")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..LogsResponse::default()
        };
        let mut printer = Printer { timestamps: true, details: true, inside: [false; 2] };
        let mut out = Vec::new();
        for data in [&b"a"[..], b"b\n", b"c\n"] {
            printer.line(&part(data), &mut out).expect("write");
        }
        let time = "1970-01-01T00:00:00.000000001Z a=%C3%BC,b=x+y%2Cz";
        assert_eq!(String::from_utf8(out).expect("text"), format!("{time} ab\n{time} c\n"));
    }
}
