//! The service's messages over a real event server: commands from the outbox of another service, answers into its inbox.

use std::sync::{Arc, Mutex};

use database::{Database, Transaction};
use item_management::messages::{EMITTED, STREAM, SUBJECTS, StockKeeper};
use outbox::{Consumer, Event, Events, Handler, HandlerError, NewEvent, Outbox, Relay, RelayOptions};
use runtime::trace::TraceContext;
use serde_json::{Value, json};
use testkit::{Nats, eventually};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::World;

/// What eshop-documents hears.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<Event>>>);

impl Handler for Answers {
    async fn handle(&self, _: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        self.0.lock().unwrap().push(event.clone());
        Ok(())
    }
}

impl Answers {
    async fn about(&self, order: Uuid, name: &str) -> Event {
        let subject = format!("items.reservation.{name}");
        eventually(&format!("{subject} of {order}"), async || {
            let heard = self.0.lock().unwrap();
            heard.iter().find(|event| event.subject == subject && event.aggregate.id == order).cloned()
        })
        .await
    }
}

/// eshop-documents, as far as messages go.
struct Documents {
    database: Database,
    outbox: Outbox,
    answers: Answers,
}

impl Documents {
    async fn start(world: &World, nats: &Nats, stop: &CancellationToken) -> Self {
        let server = world.postgres.database("eshop-documents").await;
        let database = Database::at(&server.url, &server.password).unwrap();
        Outbox::migrate(&database, stop).await.unwrap();
        let events = Events::at(&nats.url(), STREAM).await.unwrap();
        let (outbox, answers) = (Outbox::default(), Answers::default());
        let relay =
            Relay::new(database.clone(), events.clone(), outbox.clone(), RelayOptions::emitting(["documents.>"]));
        let until = stop.clone();
        tokio::spawn(async move { relay.run(until).await });
        let of = "item-management";
        let consumer =
            Consumer::new(database.clone(), events, outbox.clone(), of, ["items.reservation.*"], answers.clone());
        tokio::spawn(consumer.run(stop.clone()));
        Self { database, outbox, answers }
    }

    async fn command(&self, name: &str, order: Uuid, data: Value, trace: TraceContext) {
        let subject = format!("documents.stock.{name}");
        let event = NewEvent {
            subject: &subject,
            aggregate_id: order,
            saga: Some(order),
            initiator: Some("alice"),
            trace: Some(trace),
            data,
        };
        let mut client = self.database.get().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        Outbox::put(&transaction, event).await.unwrap();
        transaction.commit().await.unwrap();
        self.outbox.wake();
    }
}

#[tokio::test]
async fn commands_are_answered_and_poison_does_not_stand_in_the_way() {
    let world = World::new().await;
    let item = world.item("A", 5).await;
    let mut nats = Nats::start().await;
    let stop = CancellationToken::new();
    let documents = Documents::start(&world, &nats, &stop).await;

    let events = Events::at(&nats.url(), "item-management").await.unwrap();
    let (database, outbox) = (world.database.clone(), Outbox::default());
    let relay = Relay::new(database.clone(), events.clone(), outbox.clone(), RelayOptions::emitting(EMITTED));
    let until = stop.clone();
    let relaying = tokio::spawn(async move { relay.run(until).await });
    let keeper = StockKeeper { clock: world.clock.clone() };
    let consumer = Consumer::new(database, events, outbox, STREAM, SUBJECTS, keeper);
    let consuming = tokio::spawn(consumer.run(stop.clone()));

    let (good, poisoned) = (Uuid::now_v7(), Uuid::now_v7());
    let trace = TraceContext::new();
    let reserve =
        |order: Uuid, quantity: i64| json!({"order_id": order, "lines": [{"item_id": item.id, "quantity": quantity}]});
    documents.command("reserve", poisoned, reserve(poisoned, 0), trace).await;
    documents.command("reserve", good, reserve(good, 2), trace).await;
    let answer = documents.answers.about(good, "reserved").await;
    assert_eq!((answer.saga, answer.initiator.as_deref(), answer.version), (Some(good), Some("alice"), 1));
    assert_eq!(answer.trace.unwrap().trace_id(), trace.trace_id());
    assert_eq!(world.stock(item.id).await, (5, 2));

    // The event server dies and comes back; what was owed meanwhile arrives.
    nats.kill();
    documents.command("take", good, json!({"order_id": good}), trace).await;
    nats.restart().await;
    documents.answers.about(good, "taken").await;
    assert_eq!(world.stock(item.id).await, (3, 0));

    // What could never be done was put aside, and what follows it goes on.
    documents.command("release", poisoned, json!({"order_id": poisoned, "reason": "deadline"}), trace).await;
    documents.answers.about(poisoned, "released").await;
    let letters = world.reader.query("SELECT subject, reason FROM dead_letters", &[]).await.unwrap();
    let letters: Vec<(String, String)> = letters.iter().map(|row| (row.get(0), row.get(1))).collect();
    let [(subject, reason)] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(subject, "documents.stock.reserve");
    assert!(reason.contains("lines[0].quantity"), "{reason}");

    stop.cancel();
    consuming.await.unwrap();
    relaying.await.unwrap();
}
