//! Applying events: each once, in order, whatever the delivery looks like.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use database::Statements as _;
use outbox::{Event, HandlerError, dead_letters};
use testkit::eventually;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::world::{CONSUMER, ITEMS, STREAM, World, assert_each_once_in_order, emit, event, new_event};

fn fine(_: &Event) -> Result<(), HandlerError> {
    Ok(())
}

async fn letters(world: &World) -> Vec<dead_letters::DeadLetter> {
    dead_letters::list(&world.items.get().await.unwrap(), true, 0, 100).await.unwrap()
}

#[tokio::test]
async fn from_one_database_to_the_other_each_event_takes_effect_once_and_in_order() {
    let world = World::new().await;
    let relay = world.relay().await;
    let consumer = world.consumer(fine).await;
    let aggregates: Vec<Uuid> = (0..5).map(|_| Uuid::now_v7()).collect();
    for round in 0..20 {
        for aggregate in &aggregates {
            emit(&world.documents, new_event(*aggregate, round.into())).await;
        }
        relay.outbox.wake();
    }
    assert_each_once_in_order(world.effects_of(100).await, 100);
    world.consumed().await;
    relay.stop().await;
    consumer.stop().await;
}

#[tokio::test]
async fn initiator_and_trace_reach_the_handler() {
    let world = World::new().await;
    let relay = world.relay().await;
    let consumer = world.consumer(fine).await;
    world.emit(Uuid::now_v7(), 1).await;
    world.effects_of(1).await;
    let row = world.items.get().await.unwrap().one("SELECT initiator, trace FROM effects", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "alice");
    assert_eq!(row.get::<_, &str>(1), "0af7651916cd43dd8448eb211c80319c");
    relay.stop().await;
    consumer.stop().await;
}

#[tokio::test]
async fn a_message_delivered_again_takes_effect_once() {
    let world = World::new().await;
    world.make_stream().await;
    let consumer = world.consumer(fine).await;
    let order = Uuid::now_v7();
    let (first, second) = (event(order, 1), event(order, 2));
    for event in [&first, &first, &second, &first, &second] {
        world.inject(event).await;
    }
    world.effects_of(2).await;
    world.consumed().await;
    assert_eq!(world.effects().await, [(order, 1), (order, 2)]);
    assert!(letters(&world).await.is_empty());
    consumer.stop().await;
}

#[tokio::test]
async fn events_that_come_too_early_wait_for_the_ones_before_them() {
    let world = World::new().await;
    world.make_stream().await;
    let consumer = world.consumer(fine).await;
    let (order, other) = (Uuid::now_v7(), Uuid::now_v7());
    world.inject(&event(order, 1)).await;
    world.effects_of(1).await;
    for version in [4, 3] {
        world.inject(&event(order, version)).await;
    }
    world.inject(&event(other, 1)).await;
    // Those that wait do not stand in the way of others.
    assert_eq!(world.effects_of(2).await[1], (other, 1));
    world.consumed().await;
    assert_eq!(world.count(&world.items, "inbox_parked").await, 2);
    world.inject(&event(order, 2)).await;
    assert_eq!(world.effects_of(5).await, [(order, 1), (other, 1), (order, 2), (order, 3), (order, 4)]);
    eventually("nothing to be parked", async || (world.count(&world.items, "inbox_parked").await == 0).then_some(()))
        .await;
    consumer.stop().await;
}

#[tokio::test]
async fn a_history_whose_beginning_is_not_in_the_stream_is_begun_in_the_middle() {
    let world = World::new().await;
    world.make_stream().await;
    let order = Uuid::now_v7();
    for version in [7, 8, 9] {
        world.inject(&event(order, version)).await;
    }
    let consumer = world.consumer(fine).await;
    assert_eq!(world.effects_of(3).await, [(order, 7), (order, 8), (order, 9)]);
    // What came before is recognized as older, not taken for another history.
    world.inject(&event(order, 3)).await;
    world.consumed().await;
    assert!(letters(&world).await.is_empty());
    assert_eq!(world.effects().await.len(), 3);
    consumer.stop().await;
}

#[tokio::test]
async fn what_may_work_later_is_tried_again_and_its_successors_wait() {
    let world = World::new().await;
    world.make_stream().await;
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let consumer = world
        .consumer(move |event| {
            let failing = event.version == 1 && counted.fetch_add(1, Ordering::SeqCst) < 3;
            if failing { Err(HandlerError::Retry("not yet".into())) } else { Ok(()) }
        })
        .await;
    let order = Uuid::now_v7();
    for version in 1..=3 {
        world.inject(&event(order, version)).await;
    }
    assert_eq!(world.effects_of(3).await, [(order, 1), (order, 2), (order, 3)]);
    assert_eq!(tries.load(Ordering::SeqCst), 4);
    consumer.stop().await;
}

#[tokio::test]
async fn what_can_never_work_is_put_aside_and_its_successors_go_on() {
    let world = World::new().await;
    world.make_stream().await;
    let consumer = world
        .consumer(|event| match event.version {
            2 => Err(HandlerError::Permanent("it makes no sense".into())),
            _ => Ok(()),
        })
        .await;
    let order = Uuid::now_v7();
    for version in 1..=3 {
        world.inject(&event(order, version)).await;
    }
    assert_eq!(world.effects_of(2).await, [(order, 1), (order, 3)]);
    world.consumed().await;
    let letters = letters(&world).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].reason.as_str(), letters[0].consumer.as_str()), ("it makes no sense", "documents/items"));
    assert_eq!(Event::from_json(&letters[0].payload).unwrap().version, 2);
    consumer.stop().await;
}

#[tokio::test]
async fn what_does_not_work_in_the_end_is_put_aside_too() {
    let world = World::new().await;
    world.make_stream().await;
    let failing = |event: &Event| match event.version {
        1 => Err(HandlerError::Retry("never yet".into())),
        _ => Ok(()),
    };
    let consumer = world.consumer_with(failing, |options| options.attempts = 3).await;
    let order = Uuid::now_v7();
    world.inject(&event(order, 1)).await;
    world.inject(&event(order, 2)).await;
    assert_eq!(world.effects_of(1).await, [(order, 2)]);
    let letters = letters(&world).await;
    assert_eq!(letters[0].reason, "given up after 3 attempts: never yet");
    consumer.stop().await;
}

#[tokio::test]
async fn poison_is_put_aside() {
    let world = World::new().await;
    world.make_stream().await;
    let consumer = world.consumer(fine).await;
    let order = Uuid::now_v7();
    let unknown = Event { data_version: 2, ..event(order, 1) };
    world.inject_raw("documents.order.placed", b"\xff\x00 no JSON").await;
    world.inject_raw("documents.order.placed", b"{}").await;
    world.inject(&unknown).await;
    world.inject(&event(order, 2)).await;
    assert_eq!(world.effects_of(1).await, [(order, 2)]);
    world.consumed().await;
    let letters = letters(&world).await;
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().any(|letter| letter.payload == b"\xff\x00 no JSON" && letter.message_id.is_none()));
    assert!(letters.iter().any(|letter| letter.reason.contains("version 2 of its data")));
    consumer.stop().await;
}

#[tokio::test]
async fn another_event_with_a_version_that_was_handled_is_put_aside() {
    let world = World::new().await;
    world.make_stream().await;
    let consumer = world.consumer(fine).await;
    let order = Uuid::now_v7();
    world.inject(&event(order, 1)).await;
    world.effects_of(1).await;
    // The producer's database was put back to an older state and went another way.
    world.inject(&event(order, 1)).await;
    world.inject(&event(order, 2)).await;
    assert_eq!(world.effects_of(2).await, [(order, 1), (order, 2)]);
    world.consumed().await;
    assert!(letters(&world).await[0].reason.contains("handled as another event"));
    consumer.stop().await;
}

#[tokio::test]
async fn a_database_that_is_away_costs_nothing_but_time() {
    let mut world = World::new().await;
    world.make_stream().await;
    let consumer = world.consumer_with(fine, |options| options.attempts = 2).await;
    let order = Uuid::now_v7();
    world.inject(&event(order, 1)).await;
    world.effects_of(1).await;
    world.postgres.kill();
    for version in 2..=6 {
        world.inject(&event(order, version)).await;
    }
    let stream = world.stream_made().await;
    eventually("several tries", async || {
        let info = stream.consumer_info(CONSUMER).await.ok()?;
        (info.delivered.consumer_sequence > 20).then_some(())
    })
    .await;
    world.postgres.restart().await;
    eventually("all effects", async || {
        let client = world.items.get().await.ok()?;
        let row = client.one("SELECT count(*) FROM effects", &[]).await.ok()?;
        (row.get::<_, i64>(0) == 6).then_some(())
    })
    .await;
    assert_each_once_in_order(world.effects().await, 6);
    assert!(letters(&world).await.is_empty());
    consumer.stop().await;
}

#[tokio::test]
async fn deliveries_while_the_database_is_away_are_no_tries_of_the_event() {
    let mut world = World::new().await;
    let stream = world.make_stream().await;
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let fails_once = move |_: &Event| {
        if failing.swap(false, Ordering::SeqCst) { Err(HandlerError::Retry("not yet".into())) } else { Ok(()) }
    };
    let consumer = world.consumer_with(fails_once, |options| options.attempts = 2).await;
    eventually("the consumer", async || stream.consumer_info(CONSUMER).await.ok()).await;
    world.postgres.kill();
    let order = Uuid::now_v7();
    world.inject(&event(order, 1)).await;
    eventually("more deliveries than tries", async || {
        let info = stream.consumer_info(CONSUMER).await.ok()?;
        (info.delivered.consumer_sequence > 4).then_some(())
    })
    .await;
    world.postgres.restart().await;
    world.consumed().await;
    assert!(!fails.load(Ordering::SeqCst), "the handler has seen it");
    assert_eq!(world.effects_of(1).await, [(order, 1)]);
    assert!(letters(&world).await.is_empty());
    consumer.stop().await;
}

#[tokio::test]
async fn instances_share_the_work_and_one_that_dies_loses_nothing() {
    let world = World::new().await;
    let relay = world.relay().await;
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(world.consumer(fine).await);
    }
    let aggregates: Vec<Uuid> = (0..10).map(|_| Uuid::now_v7()).collect();
    for round in 0..30 {
        for aggregate in &aggregates {
            emit(&world.documents, new_event(*aggregate, round.into())).await;
        }
        relay.outbox.wake();
        match round {
            10 => instances.pop().unwrap().abort().await,
            20 => instances.pop().unwrap().stop().await,
            _ => {}
        }
    }
    assert_each_once_in_order(world.effects_of(300).await, 300);
    world.consumed().await;
    assert!(letters(&world).await.is_empty());
    relay.stop().await;
    for instance in instances {
        instance.stop().await;
    }
}

#[tokio::test]
async fn an_instance_that_stops_gives_back_what_it_has_not_begun() {
    let world = World::new().await;
    world.make_stream().await;
    for _ in 0..50 {
        world.inject(&event(Uuid::now_v7(), 1)).await;
    }
    let (begun, stuck) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(true)));
    let (signal, holding) = (Arc::clone(&begun), Arc::clone(&stuck));
    let slow = move |_: &Event| {
        signal.add_permits(1);
        if holding.load(Ordering::SeqCst) { Err(HandlerError::Retry("slow".into())) } else { Ok(()) }
    };
    // A first life in which nothing works, then a second one.
    let long = std::time::Duration::from_secs(600);
    let first = world.consumer_with(slow, |options| options.ack_wait = long).await;
    let _ = begun.acquire().await.unwrap();
    first.stop().await;
    let second = world.consumer_with(fine, |options| options.ack_wait = long).await;
    assert_each_once_in_order(world.effects_of(50).await, 50);
    second.stop().await;
}

#[tokio::test]
async fn a_message_is_not_taken_away_from_an_instance_that_works_on_it() {
    let world = World::new().await;
    world.make_stream().await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let consumer = world
        .consumer_with(
            move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(())
            },
            |options| options.ack_wait = std::time::Duration::from_millis(300),
        )
        .await;
    // The aggregate's row is locked, so that handling it takes many times the wait for an acknowledgement.
    let order = Uuid::now_v7();
    let mut client = world.items.get().await.unwrap();
    let lock = client.transaction().await.unwrap();
    let sql = "INSERT INTO inbox_aggregates (consumer, aggregate_type, aggregate_id, version) VALUES ('documents/items', 'order', $1, 0)";
    lock.run(sql, &[&order]).await.unwrap();
    world.inject(&event(order, 1)).await;
    let stream = world.stream_made().await;
    let delivered = eventually("the delivery", async || {
        let info = stream.consumer_info(CONSUMER).await.ok()?;
        (info.num_ack_pending == 1).then_some(info)
    })
    .await;
    let since = tokio::time::Instant::now();
    eventually("three times the wait to pass", async || {
        (since.elapsed() > std::time::Duration::from_millis(900)).then_some(())
    })
    .await;
    lock.rollback().await.unwrap();
    world.effects_of(1).await;
    world.consumed().await;
    let info = stream.consumer_info(CONSUMER).await.unwrap();
    assert_eq!(info.delivered.consumer_sequence, delivered.delivered.consumer_sequence, "it was delivered again");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    consumer.stop().await;
}

#[tokio::test]
async fn a_consumer_waits_for_a_stream_that_does_not_exist_yet() {
    let world = World::new().await;
    let consumer = world.consumer(fine).await;
    world.emit(Uuid::now_v7(), 3).await;
    let relay = world.relay().await;
    assert_each_once_in_order(world.effects_of(3).await, 3);
    relay.stop().await;
    consumer.stop().await;
}

#[tokio::test]
async fn an_event_server_killed_or_emptied_does_not_double_an_effect() {
    let mut world = World::new().await;
    let relay = world.relay().await;
    let consumer = world.consumer(fine).await;
    let order = Uuid::now_v7();
    world.emit(order, 20).await;
    world.effects_of(20).await;
    world.nats.restart().await;
    world.emit(order, 20).await;
    world.effects_of(40).await;
    world.nats.kill_and_lose_store();
    world.nats.restart().await;
    world.emit(order, 20).await;
    assert_each_once_in_order(world.effects_of(60).await, 60);
    world.settled().await;
    world.stream_made().await;
    world.consumed().await;
    assert_eq!(world.effects().await.len(), 60);
    assert!(letters(&world).await.is_empty());
    relay.stop().await;
    consumer.stop().await;
}

#[tokio::test]
async fn a_stream_deleted_under_everybody_comes_back_and_does_not_double_an_effect() {
    let world = World::new().await;
    let relay = world.relay().await;
    let consumer = world.consumer(fine).await;
    let order = Uuid::now_v7();
    world.emit(order, 10).await;
    world.effects_of(10).await;
    world.jetstream().await.delete_stream(STREAM).await.unwrap();
    world.emit(order, 10).await;
    assert_each_once_in_order(world.effects_of(20).await, 20);
    world.settled().await;
    world.consumed().await;
    assert_each_once_in_order(world.stream().await.iter().map(|stored| (order, stored.event.version)), 20);
    assert_eq!(world.effects().await.len(), 20);
    relay.stop().await;
    consumer.stop().await;
}

#[tokio::test]
async fn effects_that_a_database_put_back_to_an_older_state_has_lost_are_made_again() {
    let world = World::new().await;
    let relay = world.relay().await;
    let consumer = world.consumer(fine).await;
    let (order, other) = (Uuid::now_v7(), Uuid::now_v7());
    world.emit(order, 5).await;
    world.effects_of(5).await;
    world.consumed().await;
    consumer.stop().await;
    world.back_up(ITEMS).await;
    let consumer = world.consumer(fine).await;
    world.emit(order, 5).await;
    world.emit(other, 3).await;
    world.effects_of(13).await;
    world.consumed().await;
    // Everything is acknowledged, and now half of it is gone, under the consumer's feet.
    world.restore(ITEMS).await;
    let effects = eventually("the effects to come back", async || {
        let client = world.items.get().await.ok()?;
        let rows = client.all("SELECT aggregate, version FROM effects ORDER BY place", &[]).await.ok()?;
        (rows.len() >= 13).then(|| rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(Uuid, i64)>>())
    })
    .await;
    assert_each_once_in_order(effects, 13);
    world.emit(order, 1).await;
    assert_each_once_in_order(world.effects_of(14).await, 14);
    world.consumed().await;
    assert!(letters(&world).await.is_empty());
    relay.stop().await;
    consumer.stop().await;
}

#[tokio::test]
async fn tries_are_counted_across_the_lives_of_the_process() {
    let world = World::new().await;
    world.make_stream().await;
    let tries = Arc::new(AtomicU32::new(0));
    let order = Uuid::now_v7();
    world.inject(&event(order, 1)).await;
    for life in 1..=2 {
        let counted = Arc::clone(&tries);
        let failing = move |_: &Event| {
            counted.fetch_add(1, Ordering::SeqCst);
            Err(HandlerError::Retry("never yet".into()))
        };
        let consumer = world.consumer_with(failing, |options| options.attempts = 6).await;
        if life == 1 {
            eventually("some tries", async || {
                let sql = "SELECT attempts FROM inbox_attempts";
                let row = world.items.get().await.unwrap().optional(sql, &[]).await.unwrap()?;
                (row.get::<_, i32>(0) >= 3).then_some(())
            })
            .await;
            consumer.abort().await;
        } else {
            eventually("the end", async || (!letters(&world).await.is_empty()).then_some(())).await;
            consumer.stop().await;
        }
    }
    assert_eq!(letters(&world).await[0].reason, "given up after 6 attempts: never yet");
    // The one that was under way when the process ended may count although it was never finished.
    assert!((5..=6).contains(&tries.load(Ordering::SeqCst)), "{tries:?}");
    assert_eq!(world.count(&world.items, "inbox_attempts").await, 0);
}

#[tokio::test]
async fn an_event_that_ends_the_process_each_time_is_put_aside() {
    let world = World::new().await;
    world.make_stream().await;
    world.inject(&event(Uuid::now_v7(), 1)).await;
    is_put_aside_though_it_ends_the_process(&world).await;
}

#[tokio::test]
async fn an_event_that_is_looked_back_at_and_ends_the_process_each_time_is_put_aside() {
    let world = World::new().await;
    world.back_up(ITEMS).await;
    let (relay, consumer) = (world.relay().await, world.consumer(fine).await);
    world.emit(Uuid::now_v7(), 1).await;
    world.effects_of(1).await;
    world.consumed().await;
    consumer.stop().await;
    world.restore(ITEMS).await;
    is_put_aside_though_it_ends_the_process(&world).await;
    relay.stop().await;
}

async fn is_put_aside_though_it_ends_the_process(world: &World) {
    // Its handler gets no further than here, and then the process ends.
    let mut client = world.items.get().await.unwrap();
    let lock = client.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE effects IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO effects%'";
    let waiting = async || world.items.get().await.unwrap().one(waiting, &[]).await.unwrap().get::<_, i64>(0);
    for _ in 0..5 {
        let consumer = world.consumer_with(fine, |options| options.attempts = 3).await;
        eventually("the handler to begin", async || {
            let given_up = world.count(&world.items, "dead_letters").await > 0;
            (given_up || waiting().await > 0).then_some(())
        })
        .await;
        consumer.abort().await;
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        world.items.get().await.unwrap().all(end, &[]).await.unwrap();
        eventually("nothing to be left of it", async || (waiting().await == 0).then_some(())).await;
    }
    assert_eq!(letters(world).await[0].reason, "given up after 3 attempts that had no end");
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_takes_nobody_along() {
    let world = World::new().await;
    world.make_stream().await;
    let panicking = |event: &Event| if event.version == 2 { panic!("no such thing") } else { Ok(()) };
    let consumer = world.consumer_with(panicking, |options| options.attempts = 2).await;
    let order = Uuid::now_v7();
    for version in 1..=3 {
        world.inject(&event(order, version)).await;
    }
    assert_eq!(world.effects_of(2).await, [(order, 1), (order, 3)]);
    let letters = letters(&world).await;
    assert_eq!(letters[0].reason, "given up after 2 attempts: the handler panicked: no such thing");
    world.consumed().await;
    consumer.stop().await;
}

#[tokio::test]
async fn an_event_in_a_shape_nobody_knows_yet_is_not_handled_when_it_is_replayed() {
    let world = World::new().await;
    world.make_stream().await;
    let consumer = world.consumer(fine).await;
    world.inject(&Event { data_version: 2, ..event(Uuid::now_v7(), 1) }).await;
    let letter = eventually("the dead letter", async || letters(&world).await.pop()).await;
    let client = world.items.get().await.unwrap();
    assert!(dead_letters::replay(&*client, letter.id).await.unwrap());
    eventually("the answer", async || {
        let letter = dead_letters::get(&*client, letter.id).await.unwrap()?;
        (letter.status == dead_letters::Status::Open).then_some(())
    })
    .await;
    assert!(world.effects().await.is_empty());
    consumer.stop().await;
}
