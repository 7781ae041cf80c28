//! Whatever a database forgets, and however the stream is portioned when it is read back: an event keeps the version under which it was
//! published first, and the versions of each aggregate stand in the stream from 1 without gaps.

use std::collections::HashMap;

use database::{Database, ScopedFutureExt as _};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::json;
use testkit::Postgres;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{NewEvent, Outbox};

const SOURCE: &str = "spiffe://test/documents";
const STREAM: &str = "documents";
/// Everything a backup of the database holds that matters here.
const TABLES: [&str; 4] = ["outbox", "outbox_aggregates", "outbox_batches", "outbox_stream"];

#[derive(Debug, Clone)]
enum Step {
    /// An event of one of the aggregates is written.
    Put(u128),
    /// A relay begins, reads the stream in portions of so many, and publishes at most so many; with the answer lost or not.
    Publish {
        portion: usize,
        most: u16,
        answered: bool,
    },
    /// An operator has the n-th event of the stream published once more.
    Republish(usize),
    BackUp,
    Restore,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..2_u128).prop_map(Step::Put),
        5 => (1..4_usize, 0..4_u16, prop::bool::weighted(0.8))
            .prop_map(|(portion, most, answered)| Step::Publish { portion, most, answered }),
        1 => (0..8_usize).prop_map(Step::Republish),
        2 => Just(Step::BackUp),
        3 => Just(Step::Restore),
    ];
    prop::collection::vec(step, 1..24)
}

/// A database with an outbox, a stream that forgets nothing, and a backup.
struct World {
    database: Database,
    ledger: Ledger,
    stream: Vec<(Uuid, Bytes)>,
    backed_up: bool,
    _postgres: Postgres,
}

impl World {
    async fn new() -> Self {
        let postgres = Postgres::start().await;
        let at = postgres.database("documents").await;
        let database = Database::at(&at.url, &at.password).unwrap();
        Outbox::migrate(&database, &CancellationToken::new()).await.unwrap();
        for table in TABLES {
            run(&database, &format!("CREATE TABLE copy_of_{table} AS TABLE {table}")).await;
        }
        let ledger = Ledger::open(&database, STREAM, SOURCE, (1, 1 << 20)).await.unwrap();
        ledger.connection.batch_execute("SET idle_session_timeout = 0").await.unwrap();
        Self { database, ledger, stream: Vec::new(), backed_up: false, _postgres: postgres }
    }

    async fn forget_everything(&mut self) {
        run(&self.database, &format!("TRUNCATE {}", TABLES.join(", "))).await;
        self.stream.clear();
        self.backed_up = false;
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Put(aggregate) => put(&self.database, aggregate).await,
            Step::Publish { portion, most, answered } => self.publish(portion, most, answered).await,
            Step::Republish(place) => {
                let Some((id, _)) = self.stream.get(place) else { return };
                let sql = "UPDATE outbox SET published_at = NULL, stream_sequence = NULL, edition = edition + 1
                    WHERE id = $1 AND stream_sequence IS NOT NULL";
                self.database.get().await.unwrap().run(sql, &[id]).await.unwrap();
            }
            Step::BackUp => {
                self.copy("copy_of_", "").await;
                self.backed_up = true;
            }
            Step::Restore if self.backed_up => self.copy("", "copy_of_").await,
            Step::Restore => {}
        }
    }

    async fn copy(&self, to: &str, from: &str) {
        for table in TABLES {
            run(&self.database, &format!("TRUNCATE {to}{table}")).await;
            run(&self.database, &format!("INSERT INTO {to}{table} SELECT * FROM {from}{table}")).await;
        }
    }

    /// A term of a relay.
    async fn publish(&mut self, portion: usize, most: u16, answered: bool) {
        self.ledger.limits.0 = most.into();
        let known = self.ledger.known().await.unwrap();
        let kept = known.as_ref().map_or(0, |known| known.last_sequence);
        let same = kept == 0 || self.at(kept) == known.and_then(|known| known.last_message);
        let kept = if same { kept } else { 0 };
        if !same {
            self.ledger.take_back(kept).await.unwrap();
        }
        let found: Vec<Found> = (1_u64..).zip(&self.stream).skip(usize::try_from(kept).unwrap()).map(found).collect();
        for portion in found.chunks(portion) {
            self.ledger.learn(portion).await.unwrap();
        }
        let last_sequence = self.stream.len() as u64;
        let known = Known { incarnation: "one".into(), last_sequence, last_message: self.at(last_sequence) };
        self.ledger.agree(&known).await.unwrap();
        if let Some(batch) = self.ledger.turn(&[], &VecDeque::new(), Some(last_sequence)).await.unwrap() {
            let messages =
                batch.events.iter().map(|owed| (event_id(&owed.message_id()).unwrap(), owed.payload.clone()));
            self.stream.extend(messages);
            if answered {
                self.ledger.turn(&[Arc::new(batch)], &VecDeque::new(), None).await.unwrap();
            }
        }
    }

    fn at(&self, sequence: u64) -> Option<Uuid> {
        let place = usize::try_from(sequence).unwrap().checked_sub(1)?;
        self.stream.get(place).map(|(id, _)| *id)
    }

    /// Publishes what is still owed, and checks everything.
    async fn settle(&mut self) {
        let owed = async |database: &Database| depth(&database.get().await.unwrap()).await.unwrap().events;
        for _ in 0..64 {
            self.publish(2, 100, true).await;
            if owed(&self.database).await == 0 {
                break;
            }
        }
        assert_eq!(owed(&self.database).await, 0, "something is owed for ever");
        let mut first: HashMap<Uuid, i64> = HashMap::new();
        let mut last: HashMap<Uuid, i64> = HashMap::new();
        for (id, payload) in &self.stream {
            let event = Event::from_json(payload).unwrap();
            if let Some(version) = first.insert(*id, event.version) {
                assert_eq!(event.version, version, "the event {id} changed its version");
                continue;
            }
            let before = last.insert(event.aggregate.id, event.version).unwrap_or_default();
            assert_eq!(event.version, before + 1, "in the history of {}", event.aggregate);
        }
        let client = self.database.get().await.unwrap();
        let rows = client.all("SELECT id, version FROM outbox", &[]).await.unwrap();
        let known: HashMap<Uuid, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!((known.len(), known), (rows.len(), first), "the outbox is not what the stream is");
        let rows = client.all("SELECT aggregate_id, version FROM outbox_aggregates", &[]).await.unwrap();
        assert_eq!(rows.iter().map(|row| (row.get(0), row.get(1))).collect::<HashMap<Uuid, i64>>(), last);
    }
}

fn found((sequence, (id, payload)): (u64, &(Uuid, Bytes))) -> Found {
    Found { sequence, id: Some(*id), payload: payload.clone() }
}

async fn run(database: &Database, sql: &str) {
    database.get().await.unwrap().batch_execute(sql).await.unwrap();
}

fn new_event(aggregate: u128) -> NewEvent<'static, serde_json::Value> {
    NewEvent {
        subject: "documents.order.placed",
        aggregate_id: Uuid::from_u128(aggregate),
        saga: None,
        initiator: None,
        trace: None,
        data: json!({}),
    }
}

async fn put(database: &Database, aggregate: u128) {
    let event = &new_event(aggregate);
    let put: Result<Uuid, crate::Error> =
        database.transaction(|tx| async move { Outbox::put(tx, event.clone()).await }.scope_boxed()).await;
    put.unwrap();
}

#[tokio::test]
async fn batches_that_were_stored_are_marked_together_with_each_event_at_its_place() {
    let mut world = World::new().await;
    world.ledger.limits.0 = 2;
    let known = Known { incarnation: "one".into(), last_sequence: 0, last_message: None };
    world.ledger.agree(&known).await.unwrap();
    // Its position is the smallest, and it is committed when others are on their way.
    let mut slow = world.database.get().await.unwrap();
    let late = slow.transaction().await.unwrap();
    Outbox::put(&late, new_event(1)).await.unwrap();
    put(&world.database, 2).await;
    put(&world.database, 3).await;
    let none = VecDeque::new();
    let first = Arc::new(world.ledger.turn(&[], &none, Some(0)).await.unwrap().unwrap());
    late.commit().await.unwrap();
    put(&world.database, 4).await;
    let mut in_flight = VecDeque::from([Arc::clone(&first)]);
    let second = Arc::new(world.ledger.turn(&[], &in_flight, Some(first.end())).await.unwrap().unwrap());
    in_flight.push_back(Arc::clone(&second));
    assert!(world.ledger.turn(&[], &in_flight, Some(second.end())).await.unwrap().is_none());

    let stored = [first, second];
    assert!(world.ledger.turn(&stored, &none, None).await.unwrap().is_none());
    let sent: Vec<(i64, i64, Uuid)> = (1..)
        .zip(stored.iter().flat_map(|batch| &batch.events))
        .map(|(place, owed)| (place, owed.position, owed.id))
        .collect();
    assert_eq!(sent.iter().map(|(_, position, _)| position - sent[2].1).collect::<Vec<_>>(), [1, 2, 0, 3]);
    let client = world.database.get().await.unwrap();
    let rows = client.all("SELECT stream_sequence, position, id FROM outbox ORDER BY 1", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect::<Vec<_>>(), sent);
    let known = world.ledger.known().await.unwrap().unwrap();
    assert_eq!((known.last_sequence, known.last_message), (4, Some(sent[3].2)));
    assert!(client.all("SELECT FROM outbox_batches", &[]).await.unwrap().is_empty());
}

#[test]
fn versions_survive_whatever_is_forgotten_and_however_it_is_read_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = std::cell::RefCell::new(runtime.block_on(World::new()));
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let world = &mut *world.borrow_mut();
        runtime.block_on(async {
            world.forget_everything().await;
            for step in &steps {
                world.take(step).await;
            }
            world.settle().await;
        });
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test]
async fn what_is_published_once_more_keeps_its_version_whatever_was_lost() {
    let mut world = World::new().await;
    let publish = Step::Publish { portion: 1, most: 3, answered: true };
    let (put, back_up, restore) = (Step::Put(1), Step::BackUp, Step::Restore);
    for step in [&put, &put, &publish, &back_up, &put, &publish, &restore, &Step::Republish(0), &put] {
        world.take(step).await;
    }
    world.settle().await;
    assert_eq!(world.stream.len(), 5);
}

/// An event was owed when the database was copied, and published since behind others that the stream does not keep any more.
#[tokio::test]
async fn what_is_owed_goes_behind_an_event_that_is_found_under_a_later_version() {
    let mut world = World::new().await;
    for step in [Step::Put(1), Step::Put(1), Step::BackUp, Step::Publish { portion: 1, most: 1, answered: true }] {
        world.take(&step).await;
    }
    let (id, payload) = world.stream.pop().unwrap();
    let event = Event { version: 4, ..Event::from_json(&payload).unwrap() };
    world.stream.push((id, event.to_json().unwrap().into()));
    world.take(&Step::Restore).await;
    world.take(&Step::Publish { portion: 1, most: 1, answered: true }).await;
    world.take(&Step::Put(1)).await;
    let sql = "SELECT version FROM outbox ORDER BY position";
    let rows = world.database.get().await.unwrap().all(sql, &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [4, 5, 6]);
}
