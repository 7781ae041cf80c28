//! Putting events into the outbox.

use database::{ScopedFutureExt as _, Statements as _};
use outbox::{Error, NewEvent, Outbox};
use serde_json::json;
use uuid::Uuid;

use crate::world::{World, emit, new_event};

async fn versions(world: &World, aggregate: Uuid) -> Vec<i64> {
    let sql = "SELECT version FROM outbox WHERE aggregate_id = $1 ORDER BY position";
    let rows = world.documents.get().await.unwrap().all(sql, &[&aggregate]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn concurrent_writers_of_one_aggregate_get_versions_without_gaps() {
    let world = World::new().await;
    let aggregate = Uuid::now_v7();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let documents = world.documents.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    emit(&documents, new_event(aggregate, json!({}))).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(versions(&world, aggregate).await, (1..=80).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_rolled_back_is_not_owed_and_leaves_no_gap() {
    let world = World::new().await;
    let aggregate = Uuid::now_v7();
    world.emit(aggregate, 1).await;
    let mut client = world.documents.get().await.unwrap();
    let tx = client.transaction().await.unwrap();
    Outbox::put(&tx, new_event(aggregate, json!({}))).await.unwrap();
    tx.rollback().await.unwrap();
    world.emit(aggregate, 1).await;
    assert_eq!(versions(&world, aggregate).await, [1, 2]);
}

#[tokio::test]
async fn what_could_never_be_published_is_refused() {
    let world = World::new().await;
    let put = async |subject: &'static str, data: String| {
        let event = &NewEvent { subject, aggregate_id: Uuid::nil(), saga: None, initiator: None, trace: None, data };
        world.documents.transaction(|tx| async move { Outbox::put(tx, event.clone()).await }.scope_boxed()).await
    };
    for subject in ["documents.order", "documents.order.*", "documents.order.placed.twice", "", "documents..placed"] {
        let refused = put(subject, String::new()).await;
        assert!(matches!(refused, Err(Error::Subject(_))), "{subject}: {refused:?}");
    }
    let huge = put("documents.order.placed", "x".repeat(1 << 20)).await;
    assert!(matches!(huge, Err(Error::TooLarge { .. })), "{huge:?}");
    // A zero byte is fine in JSON text, though PostgreSQL could not hold it as jsonb.
    put("documents.order.placed", "\0".into()).await.unwrap();
    assert_eq!(world.owed().await, 1);
}
