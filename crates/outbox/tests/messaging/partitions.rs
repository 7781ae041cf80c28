//! The days of the outbox and of the inbox.

use std::time::Duration;

use database::Statements as _;
use testkit::eventually;
use uuid::Uuid;

use crate::world::World;

async fn days(world: &World, table: &str) -> Vec<String> {
    let sql = "SELECT relname::text FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = to_regclass($1) ORDER BY 1";
    let rows = world.documents.get().await.unwrap().all(sql, &[&table]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn days_are_made_ahead_before_the_first_event() {
    let world = World::new().await;
    world.emit(Uuid::now_v7(), 1).await;
    for table in ["outbox", "inbox"] {
        let days = days(&world, table).await;
        assert!(days.len() >= 4, "{days:?}");
    }
    assert_eq!(world.count(&world.documents, "outbox_default").await, 0);
}

#[tokio::test]
async fn a_day_is_dropped_when_its_retention_is_over_and_nothing_in_it_is_owed() {
    let world = World::new().await;
    let old_days = "CREATE TABLE outbox_20200101 PARTITION OF outbox FOR VALUES FROM ('2020-01-01') TO ('2020-01-02');
        CREATE TABLE outbox_20200102 PARTITION OF outbox FOR VALUES FROM ('2020-01-02') TO ('2020-01-03');";
    let client = world.documents.get().await.unwrap();
    client.batch_execute(old_days).await.unwrap();
    let sql = "INSERT INTO outbox (created_at, id, subject, aggregate_type, aggregate_id, version, data_version, data, published_at)
        VALUES ($1, gen_random_uuid(), 'other.x.y', 'x', gen_random_uuid(), 1, 1, '{}', $2)";
    let (first, second, stray): (jiff::Timestamp, jiff::Timestamp, jiff::Timestamp) = (
        "2020-01-01T12:00:00Z".parse().unwrap(),
        "2020-01-02T12:00:00Z".parse().unwrap(),
        "2019-01-01T12:00:00Z".parse().unwrap(),
    );
    client.run(sql, &[&first, &Some(first)]).await.unwrap();
    client.run(sql, &[&stray, &Some(stray)]).await.unwrap();
    client.run(sql, &[&second, &None::<jiff::Timestamp>]).await.unwrap();
    // Without an event server nothing is published; the days are kept all the same.
    let relay = world.relay_with(|options| options.retention = Duration::from_secs(7 * 24 * 3600)).await;
    eventually("the old day to go", async || {
        (!days(&world, "outbox").await.contains(&"outbox_20200101".to_owned())).then_some(())
    })
    .await;
    assert_eq!(world.count(&world.documents, "outbox_default").await, 0);
    assert_eq!(world.count(&world.documents, "outbox_20200102").await, 1);
    relay.stop().await;
}

#[tokio::test]
async fn an_old_day_that_somebody_reads_does_not_keep_new_days_from_being_made() {
    let world = World::new().await;
    let mut client = world.documents.get().await.unwrap();
    let old = "CREATE TABLE outbox_20200101 PARTITION OF outbox FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')";
    client.batch_execute(old).await.unwrap();
    let ahead = days(&world, "outbox").await.iter().filter(|name| name.starts_with("outbox_2")).max().unwrap().clone();
    client.batch_execute(&format!("DROP TABLE {ahead}")).await.unwrap();
    let reading = client.transaction().await.unwrap();
    reading.batch_execute("SELECT count(*) FROM outbox_20200101").await.unwrap();
    let relay = world.relay_with(|options| options.retention = Duration::from_secs(7 * 24 * 3600)).await;
    eventually("the new day", async || days(&world, "outbox").await.contains(&ahead).then_some(())).await;
    assert!(days(&world, "outbox").await.contains(&"outbox_20200101".to_owned()));
    reading.rollback().await.unwrap();
    relay.stop().await;
}

#[tokio::test]
async fn an_event_outside_all_days_is_taken_too() {
    let world = World::new().await;
    let client = world.documents.get().await.unwrap();
    for table in days(&world, "outbox").await.iter().filter(|name| !name.ends_with("default")) {
        client.batch_execute(&format!("DROP TABLE {table}")).await.unwrap();
    }
    world.emit(Uuid::now_v7(), 2).await;
    let relay = world.relay().await;
    world.settled().await;
    assert_eq!(world.stream().await.len(), 2);
    relay.stop().await;
}
