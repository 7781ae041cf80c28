//! Publishing what is owed, and nothing else, once and in order: whatever dies meanwhile.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use database::Statements as _;
use outbox::Outbox;
use serde_json::json;
use testkit::{eventually, eventually_within};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::{DOCUMENTS, STREAM, World, assert_each_once_in_order, emit, new_event, owed};

async fn assert_stream_has_each_once(world: &World, total: usize) {
    let stored = world.stream().await;
    assert_each_once_in_order(stored.iter().map(|stored| (stored.event.aggregate.id, stored.event.version)), total);
    let ids: HashSet<_> = stored.iter().map(|stored| stored.event.id).collect();
    assert_eq!(ids.len(), total);
}

/// Four writers, each with aggregates of its own, until told to stop; gives how many events they wrote. They do not run far
/// ahead of the relay.
fn writers(world: &World, outbox: &Outbox) -> (CancellationToken, Vec<tokio::task::JoinHandle<usize>>) {
    let stop = CancellationToken::new();
    let tasks = (0..4)
        .map(|_| {
            let (documents, stop, outbox) = (world.documents.clone(), stop.clone(), outbox.clone());
            tokio::spawn(async move {
                let aggregates = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
                let mut written = 0;
                while !stop.is_cancelled() {
                    while written % 10 == 0 && owed(&documents).await > 200 && !stop.is_cancelled() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    emit(&documents, new_event(aggregates[written % 3], json!({ "n": written }))).await;
                    outbox.wake();
                    written += 1;
                }
                written
            })
        })
        .collect();
    (stop, tasks)
}

async fn finish((stop, tasks): (CancellationToken, Vec<tokio::task::JoinHandle<usize>>)) -> usize {
    stop.cancel();
    let mut written = 0;
    for task in tasks {
        written += task.await.unwrap();
    }
    written
}

#[tokio::test]
async fn what_is_owed_is_published_as_it_was_put() {
    let world = World::new().await;
    let aggregate = Uuid::now_v7();
    let id = emit(&world.documents, new_event(aggregate, json!({ "text": "ä\u{0}", "n": 7 }))).await;
    let relay = world.relay().await;
    world.settled().await;
    let stored = world.stream().await;
    let event = &stored[0].event;
    assert_eq!((event.id, event.aggregate.id, event.version), (id, aggregate, 1));
    assert_eq!((event.subject.as_str(), event.aggregate.kind.as_str()), ("documents.order.placed", "order"));
    assert_eq!((event.saga, event.initiator.as_deref()), (Some(aggregate), Some("alice")));
    assert_eq!(event.trace.unwrap().trace_id(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(event.data, json!({ "text": "ä\u{0}", "n": 7 }));
    let row = world.documents.get().await.unwrap().one("SELECT stream_sequence FROM outbox", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    assert_eq!(world.count(&world.documents, "outbox_batches").await, 0);
    relay.stop().await;
}

/// So many events of seven aggregates, all at once.
async fn owe(world: &World, count: i32) {
    let sql = "INSERT INTO outbox (id, subject, aggregate_type, aggregate_id, version, data_version, data)
        SELECT gen_random_uuid(), 'documents.order.placed', 'order', ('00000000-0000-7000-8000-' || lpad((n % 7)::text, 12, '0'))::uuid,
            n / 7 + 1, 1, '{}' FROM generate_series(0, $1 - 1) AS n";
    world.documents.get().await.unwrap().run(sql, &[&count]).await.unwrap();
}

#[tokio::test]
async fn a_backlog_goes_in_atomic_batches_and_in_order() {
    let world = World::new().await;
    owe(&world, 2800).await;
    let relay = world.relay_with(|options| options.batch = 1000).await;
    world.settled().await;
    assert_stream_has_each_once(&world, 2800).await;
    let stored = world.stream().await;
    let batches: HashSet<_> = stored.iter().map(|stored| stored.batch.clone().expect("published in a batch")).collect();
    assert_eq!(batches.len(), 3);
    // Each row knows where it is.
    let sql = "SELECT id, stream_sequence FROM outbox";
    for row in world.documents.get().await.unwrap().all(sql, &[]).await.unwrap() {
        let place = usize::try_from(row.get::<_, i64>(1) - 1).unwrap();
        assert_eq!(stored[place].event.id, row.get::<_, Uuid>(0));
        assert_eq!(stored[place].sequence, place as u64 + 1);
    }
    relay.stop().await;
}

#[tokio::test]
async fn an_event_larger_than_a_batch_may_be_goes_alone() {
    let world = World::new().await;
    let aggregate = Uuid::now_v7();
    for size in [10, 900_000, 10, 10] {
        emit(&world.documents, new_event(aggregate, json!("x".repeat(size)))).await;
    }
    let relay = world.relay_with(|options| options.batch_bytes = 1000).await;
    world.settled().await;
    assert_stream_has_each_once(&world, 4).await;
    relay.stop().await;
}

#[tokio::test]
async fn an_event_that_is_committed_after_a_later_one_was_published_is_not_lost() {
    let world = World::new().await;
    let relay = world.relay().await;
    let mut slow = world.documents.get().await.unwrap();
    let slow_tx = slow.transaction().await.unwrap();
    let late = Outbox::put(&slow_tx, new_event(Uuid::now_v7(), json!({}))).await.unwrap();
    let early = emit(&world.documents, new_event(Uuid::now_v7(), json!({}))).await;
    world.settled().await;
    assert_eq!(world.stream().await.len(), 1);
    slow_tx.commit().await.unwrap();
    relay.outbox.wake();
    world.settled().await;
    let published: Vec<_> = world.stream().await.iter().map(|stored| stored.event.id).collect();
    assert_eq!(published, [early, late]);
    relay.stop().await;
}

#[tokio::test]
async fn an_event_server_killed_in_the_middle_of_batches_gets_each_event_once() {
    let mut world = World::new().await;
    let relay = world.relay_with(|options| options.batch = 20).await;
    let writers = writers(&world, &relay.outbox);
    for round in 1..=4 {
        eventually("batches to flow", async || {
            let published = world.count(&world.documents, "outbox WHERE published_at IS NOT NULL").await;
            (published > round * 50).then_some(())
        })
        .await;
        world.nats.restart().await;
    }
    let written = finish(writers).await;
    world.settled().await;
    assert_stream_has_each_once(&world, written).await;
    relay.stop().await;
}

#[tokio::test]
async fn leaders_deposed_in_the_middle_of_batches_publish_each_event_once() {
    let world = Arc::new(World::new().await);
    let relays =
        [world.relay_with(|options| options.batch = 20).await, world.relay_with(|options| options.batch = 20).await];
    let writers = writers(&world, &relays[0].outbox);
    let leader = "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND granted AND application_name = 'relay' AND datname = current_database()";
    let mut deposed = HashSet::new();
    while deposed.len() < 8 {
        let client = world.documents.get().await.unwrap();
        let pid: i32 = eventually("a leader", async || Some(client.optional(leader, &[]).await.unwrap()?.get(0))).await;
        if deposed.insert(pid) {
            let before = world.count(&world.documents, "outbox WHERE published_at IS NOT NULL").await;
            eventually("the leader to publish", async || {
                (world.count(&world.documents, "outbox WHERE published_at IS NOT NULL").await > before).then_some(())
            })
            .await;
            client.run("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
        }
    }
    let written = finish(writers).await;
    world.settled().await;
    assert_stream_has_each_once(&world, written).await;
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_replaced_and_does_no_harm_when_it_wakes_up() {
    let world = Arc::new(World::new().await);
    let (freeze, frozen) = std::sync::mpsc::channel::<std::sync::mpsc::Receiver<()>>();
    let stop = CancellationToken::new();
    // A runtime of its own, whose only thread can be stopped as SIGSTOP would stop the process.
    let leader = std::thread::spawn({
        let (world, stop) = (Arc::clone(&world), stop.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let relay = world.relay_with(|options| options.batch = 20).await;
                while !stop.is_cancelled() {
                    if let Ok(thaw) = frozen.try_recv() {
                        let _ = thaw.recv();
                    }
                    tokio::task::yield_now().await;
                }
                relay.stop().await;
            });
        }
    });
    world.stream_made().await;
    let writers = writers(&world, &Outbox::default());
    let published = async || world.count(&world.documents, "outbox WHERE published_at IS NOT NULL").await;
    eventually("the leader to publish", async || (published().await > 100).then_some(())).await;
    let (thaw, thawed) = std::sync::mpsc::channel();
    freeze.send(thawed).unwrap();
    let heir = world.relay_with(|options| options.batch = 20).await;
    let before = world.count(&world.documents, "outbox").await;
    eventually("the heir to publish", async || (published().await > before).then_some(())).await;
    thaw.send(()).unwrap();
    let written = finish(writers).await;
    world.settled().await;
    stop.cancel();
    tokio::task::spawn_blocking(|| leader.join().unwrap()).await.unwrap();
    heir.stop().await;
    assert_stream_has_each_once(&world, written).await;
}

/// A batch that was written down, as a relay does before it sends.
async fn write_down_batch(world: &World) {
    let sql = "INSERT INTO outbox_batches (id, positions, last_sequence)
        SELECT gen_random_uuid(), array_agg(position ORDER BY position), 0 FROM outbox WHERE published_at IS NULL";
    world.documents.get().await.unwrap().run(sql, &[]).await.unwrap();
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_found_in_the_stream() {
    let world = World::new().await;
    let stream = world.make_stream().await;
    world.emit(Uuid::now_v7(), 3).await;
    write_down_batch(&world).await;
    // It was stored, and the relay died before it knew.
    let (client, jetstream) = (world.documents.get().await.unwrap(), world.jetstream().await);
    for row in client.all("SELECT id FROM outbox ORDER BY position", &[]).await.unwrap() {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", row.get::<_, Uuid>(0).to_string());
        let published = jetstream.publish_with_headers("documents.order.placed", headers, "{}".into()).await;
        published.unwrap().await.unwrap();
    }
    let relay = world.relay().await;
    world.settled().await;
    assert_eq!(stream.get_info().await.unwrap().state.last_sequence, 3);
    assert_eq!(world.count(&world.documents, "outbox_batches").await, 0);
    assert_eq!(world.count(&world.documents, "outbox WHERE stream_sequence BETWEEN 1 AND 3").await, 3);
    relay.stop().await;
}

#[tokio::test]
async fn a_batch_that_was_never_sent_is_published_by_the_next_relay() {
    let world = World::new().await;
    world.make_stream().await;
    world.emit(Uuid::now_v7(), 3).await;
    write_down_batch(&world).await;
    let relay = world.relay().await;
    world.settled().await;
    assert_stream_has_each_once(&world, 3).await;
    assert_eq!(world.count(&world.documents, "outbox_batches").await, 0);
    relay.stop().await;
}

#[tokio::test]
async fn a_lost_store_is_filled_again_from_the_outbox() {
    let mut world = World::new().await;
    let relay = world.relay_with(|options| options.batch = 10).await;
    world.emit(Uuid::now_v7(), 25).await;
    world.settled().await;
    world.nats.kill_and_lose_store();
    world.nats.restart().await;
    // Nothing new is written: the loss is noticed all the same.
    eventually("the stream to be filled again", async || (world.stream().await.len() == 25).then_some(())).await;
    world.settled().await;
    assert_stream_has_each_once(&world, 25).await;
    relay.stop().await;
}

#[tokio::test]
async fn what_a_rolled_back_store_has_lost_is_published_again() {
    let world = World::new().await;
    world.emit(Uuid::now_v7(), 5).await;
    let relay = world.relay().await;
    world.settled().await;
    relay.stop().await;
    // As if the stream had had three more when its store was put back.
    let lost = "UPDATE outbox_stream SET last_sequence = 8;
        INSERT INTO outbox (id, subject, aggregate_type, aggregate_id, version, data_version, data, published_at, stream_sequence)
        SELECT gen_random_uuid(), 'documents.order.placed', 'order', aggregate_id, version + 5, 1, '{}', now(), stream_sequence + 5
        FROM outbox WHERE stream_sequence <= 3 ORDER BY position";
    world.documents.get().await.unwrap().batch_execute(lost).await.unwrap();
    let relay = world.relay().await;
    eventually("what was lost", async || (world.stream().await.len() == 8).then_some(())).await;
    world.settled().await;
    assert_stream_has_each_once(&world, 8).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_store_put_back_to_an_older_copy_gets_what_it_lost() {
    let mut world = World::new().await;
    let relay = world.relay().await;
    let (order, other) = (Uuid::now_v7(), Uuid::now_v7());
    world.emit(order, 5).await;
    world.settled().await;
    let copy = world.nats.kill_and_save_store();
    world.nats.restart().await;
    world.emit(order, 5).await;
    world.settled().await;
    world.nats.kill_and_put_back(&copy);
    world.nats.restart().await;
    world.emit(other, 1).await;
    eventually("what was lost", async || (world.stream().await.len() == 11).then_some(())).await;
    world.settled().await;
    assert_stream_has_each_once(&world, 11).await;
    relay.tells("outbox_refilled_total 5").await;
    relay.stop().await;
}

#[tokio::test]
async fn a_stream_with_another_history_that_is_longer_is_not_taken_for_the_one_that_is_known() {
    let world = World::new().await;
    world.emit(Uuid::now_v7(), 5).await;
    let relay = world.relay().await;
    world.settled().await;
    relay.stop().await;
    // The same incarnation, put back to where it had two messages; then others wrote to it.
    let before = world.stream().await;
    let jetstream = world.jetstream().await;
    let config = jetstream.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    jetstream.delete_stream(STREAM).await.unwrap();
    jetstream.create_stream(config).await.unwrap();
    for stored in &before[..2] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", stored.event.id.to_string());
        let payload = stored.event.to_json().unwrap().into();
        jetstream.publish_with_headers("documents.order.placed", headers, payload).await.unwrap().await.unwrap();
    }
    for _ in 0..5 {
        let stranger = outbox::Event { source: "elsewhere".into(), ..crate::world::event(Uuid::now_v7(), 1) };
        world.inject(&stranger).await;
    }
    let relay = world.relay().await;
    eventually("what was lost", async || (world.stream().await.len() == 10).then_some(())).await;
    world.settled().await;
    let ours: Vec<Uuid> = world.stream().await.iter().map(|stored| stored.event.id).collect();
    for stored in &before {
        assert_eq!(ours.iter().filter(|id| **id == stored.event.id).count(), 1);
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_database_put_back_to_an_older_state_remembers_what_it_had_published() {
    let world = World::new().await;
    let (order, later) = (Uuid::now_v7(), Uuid::now_v7());
    world.emit(order, 3).await;
    let relay = world.relay().await;
    world.settled().await;
    relay.stop().await;
    world.emit(order, 1).await;
    world.back_up(DOCUMENTS).await;
    // Published after the backup: one event that the backup owes, three that it does not know.
    world.emit(order, 2).await;
    world.emit(later, 1).await;
    let relay = world.relay().await;
    world.settled().await;
    relay.stop().await;
    world.restore(DOCUMENTS).await;
    // Before anybody notices, versions that consumers know are given away once more.
    world.emit(order, 2).await;
    world.emit(later, 1).await;
    let relay = world.relay().await;
    world.settled().await;
    assert_stream_has_each_once(&world, 10).await;
    assert_eq!(world.count(&world.documents, "outbox").await, 10);
    relay.tells("outbox_remembered_total 3").await;
    // And it goes on from there.
    world.emit(order, 1).await;
    world.settled().await;
    assert_stream_has_each_once(&world, 11).await;
    relay.stop().await;
}

/// The second backup is of a time when the first one had been restored and nobody had noticed: what it owes was published since, under other
/// versions than it says.
#[tokio::test]
async fn a_database_put_back_twice_takes_the_versions_of_the_stream() {
    let world = World::new().await;
    let order = Uuid::now_v7();
    let publish = async || {
        let relay = world.relay().await;
        world.settled().await;
        relay.stop().await;
    };
    world.emit(order, 1).await;
    publish().await;
    world.back_up(DOCUMENTS).await;
    world.emit(order, 2).await;
    publish().await;
    world.restore(DOCUMENTS).await;
    world.emit(order, 2).await;
    world.back_up(DOCUMENTS).await;
    publish().await;
    world.restore(DOCUMENTS).await;
    world.emit(order, 1).await;
    publish().await;
    world.emit(order, 1).await;
    publish().await;
    assert_stream_has_each_once(&world, 7).await;
    let sql = "SELECT version FROM outbox ORDER BY stream_sequence";
    let rows = world.documents.get().await.unwrap().all(sql, &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_stream_without_room_loses_nothing_and_goes_on_when_there_is_some() {
    let world = World::new().await;
    let mut config = world.make_stream().await.cached_info().config.clone();
    let jetstream = world.jetstream().await;
    config.max_bytes = 4000;
    jetstream.update_stream(&config).await.unwrap();
    let relay = world.relay_with(|options| options.batch = 3).await;
    world.emit(Uuid::now_v7(), 20).await;
    let mut claimed: HashMap<i64, HashSet<Uuid>> = HashMap::new();
    eventually("the stream to be full", async || {
        let published = world.count(&world.documents, "outbox WHERE published_at IS NOT NULL").await;
        let client = world.documents.get().await.unwrap();
        let batches = client.all("SELECT id FROM outbox_batches", &[]).await.unwrap();
        let claimed = claimed.entry(published).or_default();
        claimed.extend(batches.iter().map(|row| row.get::<_, Uuid>(0)));
        // More than are on their way at once: with nothing published in between, one was refused, and those staged behind it
        // were dropped.
        (published > 0 && claimed.len() > 6).then_some(())
    })
    .await;
    config.max_bytes = -1;
    jetstream.update_stream(&config).await.unwrap();
    world.settled().await;
    assert_stream_has_each_once(&world, 20).await;
    relay.stop().await;
}

#[tokio::test]
async fn an_event_too_large_for_the_event_server_stops_nobody() {
    let world = World::new().await;
    let sql = "INSERT INTO outbox (id, subject, aggregate_type, aggregate_id, version, data_version, data)
        VALUES (gen_random_uuid(), 'documents.order.placed', 'order', gen_random_uuid(), 1, 1, to_json(repeat('x', 1100000)))";
    world.documents.get().await.unwrap().run(sql, &[]).await.unwrap();
    world.emit(Uuid::now_v7(), 2).await;
    let relay = world.relay().await;
    world.settled().await;
    assert_stream_has_each_once(&world, 2).await;
    let client = world.documents.get().await.unwrap();
    let letters = outbox::dead_letters::list(&client, true, 0, 10).await.unwrap();
    assert!(letters[0].reason.contains("the event server takes 1048576"), "{}", letters[0].reason);
    relay.stop().await;
}

#[tokio::test]
async fn messages_of_a_stranger_in_the_stream_do_not_stop_the_relay() {
    let world = World::new().await;
    let relay = world.relay().await;
    let aggregate = Uuid::now_v7();
    world.emit(aggregate, 1).await;
    world.settled().await;
    world.inject(&crate::world::event(Uuid::now_v7(), 1)).await;
    world.emit(aggregate, 1).await;
    world.settled().await;
    assert_eq!(world.stream().await.len(), 3);
    relay.stop().await;
}

#[tokio::test]
async fn a_wake_up_in_one_process_reaches_the_leader_in_another() {
    let world = World::new().await;
    let never = |options: &mut outbox::RelayOptions| options.poll = Duration::from_secs(600);
    let leader = world.relay_with(never).await;
    world.stream_made().await;
    let follower = world.relay_with(never).await;
    world.emit(Uuid::now_v7(), 1).await;
    // The follower's process wrote it. Until it has found its place as a follower, a wake-up makes it ask for the lead.
    eventually_within(Duration::from_secs(20), "the leader to be woken", async || {
        follower.outbox.wake();
        (world.owed().await == 0).then_some(())
    })
    .await;
    leader.stop().await;
    follower.stop().await;
}

#[tokio::test]
async fn an_event_that_no_stream_takes_stops_nobody_and_can_be_replayed() {
    let world = World::new().await;
    let aggregate = Uuid::now_v7();
    world.emit(aggregate, 5).await;
    let stray = outbox::NewEvent { subject: "elsewhere.order.placed", ..new_event(Uuid::now_v7(), json!({})) };
    emit(&world.documents, stray).await;
    world.emit(aggregate, 5).await;
    // Two batches are on their way when the one with the stray is claimed.
    let relay = world.relay_with(|options| options.batch = 2).await;
    world.settled().await;
    relay.stop().await;
    assert_stream_has_each_once(&world, 10).await;
    let client = world.documents.get().await.unwrap();
    let letters = outbox::dead_letters::list(&client, true, 0, 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].subject.as_str()), (1, "elsewhere.order.placed"));

    // After the declaration was mended.
    assert!(outbox::dead_letters::replay(&*client, letters[0].id).await.unwrap());
    let relay = world.relay_with(|options| options.subjects.push("elsewhere.>".into())).await;
    world.settled().await;
    assert_eq!(world.stream().await.len(), 11);
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_is_stopped_finishes_and_marks_what_is_on_its_way() {
    let world = World::new().await;
    owe(&world, 20_000).await;
    let relay = world.relay_with(|options| options.batch = 5).await;
    let marked = async || world.count(&world.documents, "outbox WHERE published_at IS NOT NULL").await;
    eventually("batches to flow", async || (marked().await > 0).then_some(())).await;
    relay.stop().await;
    let stored = world.stream_made().await.get_info().await.unwrap().state.messages;
    assert_eq!(u64::try_from(marked().await).unwrap(), stored);
    assert_eq!(world.count(&world.documents, "outbox_batches").await, 0);
    assert!(stored < 20_000, "it was not stopped in the middle");
}

#[tokio::test]
async fn a_stream_is_made_once_and_kept_up_to_date() {
    let world = World::new().await;
    let config = world.make_stream().await.cached_info().config.clone();
    assert!(config.allow_atomic_publish);
    assert_eq!(config.storage, async_nats::jetstream::stream::StorageType::File);
    assert_eq!(config.discard, async_nats::jetstream::stream::DiscardPolicy::New);
    assert_eq!(world.make_stream().await.cached_info().config, config);
    let relay = world.relay_with(|options| options.stream_age = Duration::from_secs(3600)).await;
    let jetstream = world.jetstream().await;
    eventually("the new age", async || {
        let stream = jetstream.get_stream(STREAM).await.ok()?;
        (stream.cached_info().config.max_age == Duration::from_secs(3600)).then_some(())
    })
    .await;
    relay.stop().await;
}
