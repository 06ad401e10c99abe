// SPDX-License-Identifier: Apache-2.0
//! Following the table: order, resuming, gaps, filters, ends.

use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::store::meta::events::NewEvent;

/// Long enough for any machine; a passing test doesn't wait for it.
const DEADLINE: Duration = Duration::from_secs(20);

fn events_in(dir: &Path, retain: u32) -> Arc<Events> {
    Events::new(Arc::new(Db::open(&dir.join("meta.db")).expect("open")), retain)
}

fn append(events: &Events, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        let event = NewEvent {
            namespace: if id.is_multiple_of(2) { "even" } else { "odd" }.into(),
            kind: "container",
            action: "start",
            id: id.to_string(),
            attributes: BTreeMap::from([("name".into(), format!("c{id}"))]),
        };
        events.db.write(|tx| events::append(tx, &event)).expect("append");
        events.committed();
    }
}

async fn follow(events: &Arc<Events>, start: Start) -> Subscription {
    events.subscribe(Query { start, until: None, filter: EventFilter::default() }).await.expect("subscribe")
}

async fn next(subscription: &mut Subscription) -> Option<Notice> {
    tokio::time::timeout(DEADLINE, subscription.next()).await.expect("in time").expect("read")
}

async fn expect_ids(subscription: &mut Subscription, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        match next(subscription).await {
            Some(Notice::Event(event)) => {
                assert_eq!(event.id, id.to_string());
                assert_eq!(event.cursor, id);
            }
            other => panic!("expected event {id}, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_happens_from_now_on_is_told_in_order() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = events_in(dir.path(), 1000);
    append(&events, 1..=3);
    let mut subscription = follow(&events, Start::Now).await;
    assert_eq!(next(&mut subscription).await, Some(Notice::Subscribed(3)));
    append(&events, 4..=5);
    expect_ids(&mut subscription, 4..=5).await;
}

#[tokio::test]
async fn a_writer_beside_the_reader_makes_no_gap_and_no_duplicate() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = events_in(dir.path(), 100_000);
    let last = 3 * BATCH as u64 + 7;
    let mut subscription = follow(&events, Start::After(0)).await;
    assert_eq!(next(&mut subscription).await, Some(Notice::Subscribed(0)));
    let writer = Arc::clone(&events);
    let writing = spawn_blocking(move || append(&writer, 1..=last));
    expect_ids(&mut subscription, 1..=last).await;
    writing.await.expect("writer");
}

#[tokio::test]
async fn a_subscriber_goes_on_after_a_restart_of_the_engine() {
    let dir = tempfile::tempdir().expect("tempdir");
    let before = events_in(dir.path(), 1000);
    append(&before, 1..=5);
    drop(before);
    let after = events_in(dir.path(), 1000);
    append(&after, 6..=7);
    let mut subscription = follow(&after, Start::After(3)).await;
    assert_eq!(next(&mut subscription).await, Some(Notice::Subscribed(7)));
    expect_ids(&mut subscription, 4..=7).await;
}

#[tokio::test]
async fn a_cursor_that_is_no_longer_kept_is_a_gap() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = events_in(dir.path(), 4);
    append(&events, 1..=10);
    events.trim().await;
    for after in [0, 3, 5] {
        let mut subscription = follow(&events, Start::After(after)).await;
        assert_eq!(next(&mut subscription).await, Some(Notice::Subscribed(10)));
        assert_eq!(next(&mut subscription).await, Some(Notice::Gap(7)));
        expect_ids(&mut subscription, 7..=10).await;
    }
    let mut whole = follow(&events, Start::After(6)).await;
    assert_eq!(next(&mut whole).await, Some(Notice::Subscribed(10)));
    expect_ids(&mut whole, 7..=10).await;
}

#[tokio::test]
async fn a_subscriber_slower_than_the_trimming_is_told() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = events_in(dir.path(), 2);
    let mut subscription = follow(&events, Start::Now).await;
    assert_eq!(next(&mut subscription).await, Some(Notice::Subscribed(0)));
    append(&events, 1..=9);
    events.trim().await;
    assert_eq!(next(&mut subscription).await, Some(Notice::Gap(8)));
    expect_ids(&mut subscription, 8..=9).await;
}

#[tokio::test]
async fn a_cursor_from_elsewhere_is_a_gap_and_the_stream_goes_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = events_in(dir.path(), 1000);
    append(&events, 1..=2);
    let mut subscription = follow(&events, Start::After(500)).await;
    assert_eq!(next(&mut subscription).await, Some(Notice::Subscribed(2)));
    assert_eq!(next(&mut subscription).await, Some(Notice::Gap(3)));
    append(&events, 3..=3);
    expect_ids(&mut subscription, 3..=3).await;
}

#[tokio::test]
async fn since_and_until_bound_a_look_at_the_past() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = events_in(dir.path(), 1000);
    append(&events, 1..=3);
    let middle = berth::bundle::now_nanos();
    append(&events, 4..=6);
    let all = EventFilter::default();
    let query = Query { start: Start::Since(0), until: Some(middle), filter: all.clone() };
    let mut early = events.subscribe(query).await.expect("subscribe");
    assert_eq!(next(&mut early).await, Some(Notice::Subscribed(6)));
    expect_ids(&mut early, 1..=3).await;
    assert_eq!(next(&mut early).await, None);

    let now = berth::bundle::now_nanos();
    let query = Query { start: Start::Since(middle), until: Some(now), filter: all };
    let mut late = events.subscribe(query).await.expect("subscribe");
    assert_eq!(next(&mut late).await, Some(Notice::Subscribed(6)));
    expect_ids(&mut late, 4..=6).await;
    assert_eq!(next(&mut late).await, None);
    assert_eq!(next(&mut late).await, None);
}

#[tokio::test]
async fn until_ends_a_subscription_that_hears_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = events_in(dir.path(), 1000);
    let until = berth::bundle::now_nanos() + 50_000_000;
    let query = Query { start: Start::Now, until: Some(until), filter: EventFilter::default() };
    let mut subscription = events.subscribe(query).await.expect("subscribe");
    assert_eq!(next(&mut subscription).await, Some(Notice::Subscribed(0)));
    assert_eq!(next(&mut subscription).await, None);
    assert!(berth::bundle::now_nanos() >= until);
}

#[tokio::test]
async fn a_filter_leaves_others_out() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = events_in(dir.path(), 1000);
    append(&events, 1..=6);
    let filter = EventFilter::of(&"even".parse().expect("valid"));
    let query = Query { start: Start::After(0), until: None, filter };
    let mut subscription = events.subscribe(query).await.expect("subscribe");
    assert_eq!(next(&mut subscription).await, Some(Notice::Subscribed(6)));
    expect_ids(&mut subscription, [2, 4, 6]).await;
}

#[tokio::test]
async fn the_table_is_trimmed_as_it_grows() {
    let dir = tempfile::tempdir().expect("tempdir");
    let events = events_in(dir.path(), 10);
    append(&events, 1..=20);
    let trimming = tokio::spawn(Arc::clone(&events).keep_trimmed());
    let mut subscription = follow(&events, Start::Now).await;
    assert!(matches!(next(&mut subscription).await, Some(Notice::Subscribed(_))));
    let kept = || events.db.read(events::bounds).expect("bounds");
    let deadline = std::time::Instant::now() + DEADLINE;
    // At the start, and again after TRIM_EVERY commits.
    for newest in [20, 20 + TRIM_EVERY + 1] {
        append(&events, kept().newest + 1..=newest);
        while kept().oldest < newest - 10 {
            assert!(std::time::Instant::now() < deadline, "not trimmed: {:?}", kept());
            tokio::task::yield_now().await;
        }
    }
    trimming.abort();
}
