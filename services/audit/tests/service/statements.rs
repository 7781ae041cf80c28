//! Each statement that the operations do not show enough of.

use audit::{chain, domain::Hash, store};

use crate::world::{World, record};

#[tokio::test]
async fn nothing_in_the_chain_can_be_changed_or_removed() {
    let world = World::with_entries(3).await;
    for statement in [
        "UPDATE entries SET actor = 'bob'",
        "DELETE FROM entries WHERE seq = 2",
        "TRUNCATE entries",
        "DELETE FROM entries",
    ] {
        let error = world.intruder.batch_execute(statement).await.unwrap_err();
        assert!(error.as_db_error().unwrap().message().contains("never changed"), "{statement}: {error:?}");
    }
    let granted = "SELECT count(*) FROM information_schema.role_table_grants WHERE table_name = 'entries'
        AND privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE')";
    let granted: i64 = world.intruder.query_one(granted, &[]).await.unwrap().get(0);
    assert_eq!(granted, 0);
    assert_eq!(world.verify("").await["verified"], true);
}

/// Many writers, two appenders at once: one chain without gaps, everything once.
#[tokio::test]
async fn however_many_write_there_is_one_chain() {
    let world = World::new().await;
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let database = world.database.clone();
            tokio::spawn(async move {
                for _ in 0..40 {
                    store::take_in(&*database.get().await.unwrap(), &record()).await.unwrap();
                }
            })
        })
        .collect();
    let appenders: Vec<_> = (0..2)
        .map(|_| {
            let database = world.database.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    chain::drain(&database).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in writers.into_iter().chain(appenders) {
        task.await.unwrap();
    }
    chain::drain(&world.database).await.unwrap();
    let verification = world.verify("").await;
    assert_eq!((&verification["verified"], &verification["entries"]), (&true.into(), &320.into()), "{verification:#}");
    let (head, last) = store::end(&*world.database.get().await.unwrap()).await.unwrap();
    assert_eq!((head.seq, last), (320, 320));
    assert_ne!(head.hash, Hash::GENESIS);
}

/// More than fits into one batch, in entries and in bytes.
#[tokio::test]
async fn a_walk_is_as_long_as_the_chain_and_as_small_as_a_batch() {
    let world = World::with_entries(usize::try_from(store::BATCH).unwrap() + 10).await;
    let client = world.database.get().await.unwrap();
    for _ in 0..6 {
        let large = audit::domain::Record { content: "x".repeat(900_000), ..record() };
        store::take_in(&*client, &large).await.unwrap();
    }
    chain::drain(&world.database).await.unwrap();
    let end = store::BATCH + 16;
    assert_eq!(store::walk(&*client, 1, end).await.unwrap().len(), usize::try_from(store::BATCH).unwrap());
    let large = store::walk(&*client, store::BATCH + 11, end).await.unwrap();
    assert_eq!(large.len(), 4, "not more than some megabytes at once");
    assert_eq!(store::walk(&*client, end, end).await.unwrap().len(), 1);
    assert!(store::walk(&*client, end + 1, end + 9).await.unwrap().is_empty());
    let verification = world.verify("").await;
    assert_eq!((&verification["verified"], &verification["entries"]), (&true.into(), &end.into()), "{verification:#}");
}
