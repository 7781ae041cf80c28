//! What an operator sees from outside.

use outbox::HandlerError;
use uuid::Uuid;

use crate::world::{World, event};

#[tokio::test]
async fn relay_and_consumer_tell_what_they_do() {
    let world = World::new().await;
    world.emit(Uuid::now_v7(), 3).await;
    let relay = world.relay().await;
    relay.tells("outbox_published_total 3").await;
    relay.tells("outbox_relay_leader 1").await;
    relay.tells("outbox_delay_seconds_count 3").await;

    let consumer = world
        .consumer(|event| match event.version {
            4 => Err(HandlerError::Permanent("no".into())),
            _ => Ok(()),
        })
        .await;
    let (refused, early) = (Uuid::now_v7(), Uuid::now_v7());
    for version in 1..=4 {
        world.inject(&event(refused, version)).await;
    }
    world.inject(&event(early, 1)).await;
    world.inject(&event(early, 3)).await;
    let of = |name: &str, value: u32| format!("{name}{{consumer=\"documents/items\"}} {value}");
    let outcome = |outcome: &str, value: u32| {
        format!("inbox_messages_total{{consumer=\"documents/items\",outcome=\"{outcome}\"}} {value}")
    };
    for line in [
        outcome("handled", 7),
        outcome("dead", 1),
        outcome("parked", 1),
        of("inbox_parked", 1),
        of("inbox_dead_letters", 1),
        of("inbox_lag", 0),
        of("inbox_delay_seconds_count", 7),
    ] {
        consumer.tells(&line).await;
    }
    relay.stop().await;
    consumer.stop().await;
}

#[tokio::test]
async fn an_outbox_without_an_event_server_tells_how_much_it_owes() {
    let mut world = World::new().await;
    world.nats.kill();
    world.emit(Uuid::now_v7(), 5).await;
    let relay = world.relay().await;
    relay.tells("outbox_unpublished 5").await;
    assert!(world.events("documents").await.health().await.is_err());
    world.nats.restart().await;
    world.settled().await;
    relay.stop().await;
}
