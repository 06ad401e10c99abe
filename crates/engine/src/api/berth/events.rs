// SPDX-License-Identifier: Apache-2.0
//! berth.v1.Events.

use std::{pin::Pin, sync::Arc};

use berth::{
    api::v1::{
        self, Gap, SubscribeRequest, SubscribeResponse, Subscribed, events_server::Events,
        subscribe_response::Kind,
    },
    ids::Namespace,
};
use futures_util::{Stream, stream};
use prost_types::Timestamp;
use tonic::{Request, Response, Status, async_trait};

use crate::{
    api::status::to_status,
    lifecycle::events::{self, Event, EventFilter, Notice, Query, Start, Subscription},
};

/// Stands for all namespaces.
const ALL: &str = "*";

/// berth.v1.Events over the engine's own.
#[derive(Debug)]
pub struct EventsService(pub Arc<events::Events>);

#[async_trait]
impl Events for EventsService {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let query = decode(&request.into_inner())?;
        let subscription = self.0.subscribe(query).await.map_err(|e| to_status(&e))?;
        Ok(Response::new(Box::pin(stream::unfold(Some(subscription), next))))
    }
}

/// One message and what is left to follow; an error is the last message.
async fn next(
    subscription: Option<Subscription>,
) -> Option<(Result<SubscribeResponse, Status>, Option<Subscription>)> {
    let mut subscription = subscription?;
    match subscription.next().await {
        Ok(notice) => Some((Ok(encode(notice?)), Some(subscription))),
        Err(e) => Some((Err(to_status(&e)), None)),
    }
}

fn decode(request: &SubscribeRequest) -> Result<Query, Status> {
    let mut filter = if request.namespace == ALL {
        EventFilter::default()
    } else {
        let namespace = Namespace::of_request(&request.namespace);
        EventFilter::of(&namespace.map_err(|e| Status::invalid_argument(e.to_string()))?)
    };
    for pair in &request.filters {
        filter.add(&pair.key, &pair.value).map_err(|e| to_status(&e))?;
    }
    let since = request.since.as_ref().map(nanos).transpose()?;
    let until = request.until.as_ref().map(nanos).transpose()?;
    let start = match (request.after, since) {
        (Some(cursor), _) => Start::After(cursor),
        (None, Some(time)) => Start::Since(time),
        (None, None) => Start::Now,
    };
    Ok(Query { start, until, filter })
}

/// Nanoseconds since the Unix epoch; a time before it is the epoch.
fn nanos(time: &Timestamp) -> Result<u64, Status> {
    let fraction = u64::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .ok_or_else(|| Status::invalid_argument(format!("{} is no number of nanoseconds", time.nanos)))?;
    let seconds = u64::try_from(time.seconds).unwrap_or_default();
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(fraction))
}

fn encode(notice: Notice) -> SubscribeResponse {
    let kind = match notice {
        Notice::Subscribed(cursor) => Kind::Subscribed(Subscribed { cursor }),
        Notice::Gap(oldest) => Kind::Gap(Gap { oldest }),
        Notice::Event(event) => Kind::Event(encode_event(event)),
    };
    SubscribeResponse { kind: Some(kind) }
}

fn encode_event(event: Event) -> v1::Event {
    v1::Event {
        cursor: event.cursor,
        time: Some(timestamp(event.time)),
        namespace: event.namespace,
        r#type: event.kind,
        action: event.action,
        id: event.id,
        attributes: event.attributes.into_iter().collect(),
    }
}

fn timestamp(nanos: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos % 1_000_000_000).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_before_a_time_and_nothing_is_now() {
        let since = Some(Timestamp { seconds: 1, nanos: 5 });
        let start = |after, since| {
            decode(&SubscribeRequest { after, since, ..SubscribeRequest::default() }).expect("decodes").start
        };
        assert_eq!(start(None, None), Start::Now);
        assert_eq!(start(None, since), Start::Since(1_000_000_005));
        assert_eq!(start(Some(7), since), Start::After(7));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let filter = v1::Filter { key: "colour".into(), value: "red".into() };
        let time = |nanos| Some(Timestamp { seconds: 1, nanos });
        for request in [
            SubscribeRequest { namespace: "a/b".into(), ..SubscribeRequest::default() },
            SubscribeRequest { filters: vec![filter], ..SubscribeRequest::default() },
            SubscribeRequest { since: time(-1), ..SubscribeRequest::default() },
            SubscribeRequest { until: time(1_000_000_000), ..SubscribeRequest::default() },
        ] {
            assert_eq!(decode(&request).expect_err("refused").code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn a_time_survives_the_wire() {
        for n in [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789] {
            assert_eq!(nanos(&timestamp(n)).expect("valid"), n);
        }
    }
}
