//! Listing, replaying and discarding what could not be handled.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use outbox::{
    Event, HandlerError,
    dead_letters::{self, Status},
};
use testkit::eventually;
use uuid::Uuid;

use crate::world::{World, event};

#[tokio::test]
async fn a_dead_letter_can_be_replayed_after_the_cause_was_mended() {
    let world = World::new().await;
    world.make_stream().await;
    let broken = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&broken);
    let consumer = world
        .consumer(move |event: &Event| {
            let fails = event.version == 1 && seen.load(Ordering::SeqCst);
            if fails { Err(HandlerError::Permanent("broken".into())) } else { Ok(()) }
        })
        .await;
    let order = Uuid::now_v7();
    world.inject(&event(order, 1)).await;
    world.inject(&event(order, 2)).await;
    world.effects_of(1).await;
    let client = world.items.get().await.unwrap();
    let letter = dead_letters::list(&client, true, 0, 10).await.unwrap().remove(0);
    assert_eq!((letter.status, letter.reason.as_str()), (Status::Open, "broken"));

    // Too early: it fails again and stays.
    assert!(dead_letters::replay(&*client, letter.id).await.unwrap());
    eventually("the replay to fail", async || {
        (dead_letters::get(&*client, letter.id).await.unwrap()?.status == Status::Open).then_some(())
    })
    .await;

    broken.store(false, Ordering::SeqCst);
    assert!(dead_letters::replay(&*client, letter.id).await.unwrap());
    assert_eq!(world.effects_of(2).await, [(order, 2), (order, 1)]);
    eventually("the letter to be closed", async || {
        (dead_letters::get(&*client, letter.id).await.unwrap()?.status == Status::Replayed).then_some(())
    })
    .await;
    assert!(!dead_letters::replay(&*client, letter.id).await.unwrap(), "it was replayed once");
    assert!(dead_letters::list(&client, true, 0, 10).await.unwrap().is_empty());
    consumer.stop().await;
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages_and_can_be_discarded() {
    let world = World::new().await;
    world.make_stream().await;
    let consumer = world.consumer(|_| Ok(())).await;
    for n in 0..5 {
        world.inject_raw("documents.order.placed", format!("poison {n}").as_bytes()).await;
    }
    let client = world.items.get().await.unwrap();
    let all = eventually("the letters", async || {
        let letters = dead_letters::list(&client, true, 0, 100).await.unwrap();
        (letters.len() == 5).then_some(letters)
    })
    .await;
    let page = dead_letters::list(&client, true, all[1].id, 2).await.unwrap();
    assert_eq!(page, all[2..4]);
    assert!(dead_letters::discard(&*client, all[0].id).await.unwrap());
    assert!(!dead_letters::discard(&*client, all[0].id).await.unwrap());
    assert!(!dead_letters::replay(&*client, all[0].id).await.unwrap());
    assert_eq!(dead_letters::list(&client, true, 0, 100).await.unwrap().len(), 4);
    assert_eq!(dead_letters::list(&client, false, 0, 100).await.unwrap()[0].status, Status::Discarded);
    // Poison that is replayed is still poison.
    assert!(dead_letters::replay(&*client, all[1].id).await.unwrap());
    eventually("the replay to fail", async || {
        (dead_letters::get(&*client, all[1].id).await.unwrap()?.status == Status::Open).then_some(())
    })
    .await;
    assert!(dead_letters::get(&*client, i64::MAX).await.unwrap().is_none());
    consumer.stop().await;
}
