// SPDX-License-Identifier: Apache-2.0
//! `berth events`.

use std::{collections::BTreeMap, time::Duration};

use berth::api::v1::{Event, SubscribeRequest, subscribe_response::Kind};
use serde::Serialize;
use tokio::time;

use crate::{
    cli::system::Events,
    context::Context,
    error::{Error, Result},
    output::{self, human, json, listing, template::Template, text},
};

/// How long a restarting engine is waited for.
const AWAY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
enum Format {
    Line,
    Json,
    Template(Template),
}

/// By Docker's names, and the cursor to go on from.
#[derive(Debug, Serialize)]
struct View {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
    scope: &'static str,
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
    #[serde(rename = "Namespace")]
    namespace: String,
    #[serde(rename = "Cursor")]
    cursor: u64,
}

#[derive(Debug, Serialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: BTreeMap<String, String>,
}

/// `berth events`: goes on after the last event when the engine restarts.
pub(super) async fn events(context: &Context, args: Events) -> Result<u8> {
    let format = match args.format.as_deref() {
        None | Some("") => Format::Line,
        Some("json") => Format::Json,
        Some(text) => Format::Template(Template::parse(&listing::unescape(text))?),
    };
    let mut request = SubscribeRequest {
        namespace: context.namespace.clone(),
        after: args.after,
        since: args.since,
        until: args.until,
        filters: args.filter,
    };
    let mut context = context.clone();
    loop {
        match follow(&context, &mut request, &format).await {
            Ok(()) => return Ok(0),
            Err(error) if error.is_lost() && request.after.is_some() => {
                context = reconnect(&context).await.ok_or(error)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Prints events until the stream ends; `request` then goes on from there.
async fn follow(context: &Context, request: &mut SubscribeRequest, format: &Format) -> Result<()> {
    let mut stream = context.client.events().subscribe(request.clone()).await?.into_inner();
    while let Some(answer) = stream.message().await? {
        match answer.kind {
            // With `since`, the events before the newest one are still to come.
            Some(Kind::Subscribed(subscribed)) if request.after.is_none() && request.since.is_none() => {
                request.after = Some(subscribed.cursor);
            }
            Some(Kind::Event(event)) => {
                request.after = Some(event.cursor);
                output::print(&render(event, format)?)?;
            }
            Some(Kind::Gap(gap)) => output::warn(&format!(
                "WARNING: events before {} are no longer kept: some are missing here",
                gap.oldest
            )),
            Some(Kind::Subscribed(_)) | None => {}
        }
    }
    Ok(())
}

async fn reconnect(context: &Context) -> Option<Context> {
    let deadline = time::Instant::now() + AWAY;
    loop {
        time::sleep(PAUSE).await;
        match context.reconnect().await {
            Ok(context) => return Some(context),
            Err(_) if time::Instant::now() < deadline => {}
            Err(_) => return None,
        }
    }
}

fn render(event: Event, format: &Format) -> Result<String> {
    Ok(match format {
        Format::Line => line(event),
        Format::Json => json::line(&View::of(event))? + "\n",
        Format::Template(template) => {
            let value = serde_json::to_value(View::of(event)).map_err(|e| Error::new(e.to_string()))?;
            template.render(&value)? + "\n"
        }
    })
}

/// `TIME container start ID (image=…, name=…)`.
fn line(event: Event) -> String {
    let time = human::rfc3339_local(&event.time.unwrap_or_default());
    let mut attributes: Vec<String> = event.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
    attributes.sort_unstable();
    let line = format!("{time} {} {} {} ({})", event.r#type, event.action, event.id, attributes.join(", "));
    // Labels are free text, and this is a line.
    text::visible(&line).replace('\n', "\\n") + "\n"
}

impl View {
    fn of(event: Event) -> Self {
        let time = event.time.unwrap_or_default();
        Self {
            kind: event.r#type,
            action: event.action,
            actor: Actor { id: event.id, attributes: event.attributes.into_iter().collect() },
            scope: "local",
            time: time.seconds,
            time_nano: time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into()),
            namespace: event.namespace,
            cursor: event.cursor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            cursor: 7,
            time: Some(prost_types::Timestamp { seconds: 1_763_939_358, nanos: 123_456_789 }),
            namespace: "default".into(),
            r#type: "container".into(),
            action: "start".into(),
            id: "abc".into(),
            attributes: [("name", "a\nb"), ("image", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let line = line(event());
        assert!(line.ends_with(" container start abc (image=x, name=a\\nb)\n"), "{line}");
        assert!(line.contains(":18.123456789"), "{line}");
    }

    #[test]
    fn json_has_docker_s_names_and_the_cursor() {
        assert_eq!(
            render(event(), &Format::Json).expect("json"),
            "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"abc\",\"Attributes\":\
             {\"image\":\"x\",\"name\":\"a\\nb\"}},\"scope\":\"local\",\"time\":1763939358,\
             \"timeNano\":1763939358123456789,\"Namespace\":\"default\",\"Cursor\":7}\n"
        );
        let template = Template::parse("{{.Action}} {{.Actor.Attributes.image}}").expect("template");
        assert_eq!(render(event(), &Format::Template(template)).expect("line"), "start x\n");
    }
}
