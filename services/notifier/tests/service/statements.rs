//! What the operations do not show of the statements: taking what is due, and forgetting.

use std::time::Duration;

use database::Statements as _;
use notifier::store;

use crate::world::{World, carol, order_event};

const LEASE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_is_due_is_taken_by_one_alone_and_a_few_of_each_at_a_time() {
    let world = World::new().await;
    let (first, _) = world.subscribe(&carol(), "https://one.example/", &[">"]).await;
    let (second, _) = world.subscribe(&carol(), "https://two.example/", &[">"]).await;
    for _ in 0..5 {
        world.happens(&order_event("documents.order.placed", Some("alice"))).await;
    }
    let client = world.database.get().await.unwrap();
    let claim = async |busy: &[&str], each, limit| {
        let busy: Vec<String> = busy.iter().map(ToString::to_string).collect();
        let mut taken: Vec<_> = store::claim(&*client, &busy, each, limit, LEASE)
            .await
            .unwrap()
            .into_iter()
            .map(|due| due.subscription_id)
            .collect();
        taken.sort();
        taken
    };
    assert_eq!(claim(&["https://one.example:443"], 2, 10).await, [second, second]);
    assert_eq!(claim(&[], 2, 3).await.len(), 3);
    assert_eq!(claim(&[], 9, 10).await.len(), 5);
    assert!(claim(&[], 9, 10).await.is_empty(), "all are taken");
    client.batch_execute("UPDATE deliveries SET next_at = now()").await.unwrap();
    assert_eq!(claim(&["https://two.example:443"], 9, 10).await, [first; 5], "whose lease is over is due again");
    client
        .batch_execute("UPDATE deliveries SET next_at = now(); UPDATE subscriptions SET state = 'paused'")
        .await
        .unwrap();
    assert!(claim(&[], 9, 10).await.is_empty(), "nothing of subscriptions that are not active");
}

#[tokio::test]
async fn what_is_old_is_forgotten_with_its_events() {
    let world = World::new().await;
    world.subscribe(&carol(), "https://one.example/", &[">"]).await;
    for _ in 0..3 {
        world.happens(&order_event("documents.order.placed", Some("alice"))).await;
    }
    let client = world.database.get().await.unwrap();
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(store::purge(&*client, day, 100).await.unwrap(), 0);
    let age =
        "UPDATE deliveries SET updated_at = now() - interval '2 days' WHERE id IN (SELECT id FROM deliveries LIMIT 2)";
    client.run(age, &[]).await.unwrap();
    client.batch_execute("UPDATE events SET received_at = now() - interval '2 days'").await.unwrap();
    assert_eq!(store::purge(&*client, day, 100).await.unwrap(), 4);
    assert_eq!((world.count("deliveries").await, world.count("events").await), (1, 1));
}
