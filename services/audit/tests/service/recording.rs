//! Events of several streams, through the event bus into the chain.

use audit::{chain, messages::Recorder};
use database::Database;
use outbox::{Consumer, Events, NewEvent, Outbox, Relay, RelayOptions, refusals};
use serde_json::json;
use testkit::{Postgres, eventually};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::{World, dave};

#[tokio::test]
async fn events_and_refusals_of_every_service_are_recorded_once() {
    let world = World::new().await;
    let producers = Postgres::start().await;
    let (stop, recorded) = (CancellationToken::new(), Outbox::default());
    let mut running = vec![tokio::spawn(chain::run(world.database.clone(), recorded.clone(), stop.clone()))];
    let order = Uuid::now_v7();
    for domain in ["items", "documents"] {
        let at = producers.database(domain).await;
        let (database, outbox) = (Database::at(&at.url, &at.password).unwrap(), Outbox::default());
        Outbox::migrate(&database, &stop).await.unwrap();
        let events = Events::at(&world.nats.url(), domain).await.unwrap();
        let all = format!("{domain}.>");
        let relay = Relay::new(database.clone(), events, outbox.clone(), RelayOptions::emitting([all.clone()]));
        let until = stop.clone();
        running.push(tokio::spawn(async move { relay.run(until).await }));
        let events = Events::at(&world.nats.url(), "audit").await.unwrap();
        let consumer = Consumer::new(world.database.clone(), events, recorded.clone(), domain, [all], Recorder);
        running.push(tokio::spawn(consumer.run(stop.clone())));

        let data = &json!({ "customer": "alice", "name": "a \"chair\" \u{1f600}" });
        let subjects = ["placed", "confirmed"].map(|event| format!("{domain}.order.{event}"));
        let event = |subject| NewEvent {
            subject,
            aggregate_id: order,
            saga: Some(order),
            initiator: Some("alice"),
            trace: None,
            data,
        };
        outbox.emit(&database, &subjects.each_ref().map(|subject| event(subject))).await.unwrap();

        let noted = auth::refusals::Refusals::default();
        noted.note(auth::refusals::Refusal {
            principal: Some("mallory".into()),
            roles: Default::default(),
            action: "view-order".into(),
            resource: format!("Order/{order}"),
            reason: "no policy permits it".into(),
            client: None,
        });
        let ended = CancellationToken::new();
        ended.cancel();
        noted.run(ended, refusals::recorder(outbox, database, domain)).await;
    }
    let page = eventually("everything to be recorded", async || {
        let page = world.get(&dave(), "/audit?limit=100").await.expect(200).body;
        (page["items"].as_array().unwrap().len() == 6).then_some(page)
    })
    .await;
    let text = |entry: &serde_json::Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut told: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(entry, "type"), text(entry, "subject"), text(entry, "actor")))
        .collect();
    told.sort();
    let expected = |kind: &str, subject: String, actor: &str| (kind.to_owned(), subject, actor.to_owned());
    assert_eq!(
        told,
        [
            expected("documents.access.refused", format!("Order/{order}"), "mallory"),
            expected("documents.order.confirmed", format!("order/{order}"), "alice"),
            expected("documents.order.placed", format!("order/{order}"), "alice"),
            expected("items.access.refused", format!("Order/{order}"), "mallory"),
            expected("items.order.confirmed", format!("order/{order}"), "alice"),
            expected("items.order.placed", format!("order/{order}"), "alice"),
        ]
    );
    let verification = world.verify("").await;
    assert_eq!((&verification["verified"], &verification["entries"]), (&json!(true), &json!(6)), "{verification:#}");
    stop.cancel();
    for task in running {
        task.await.unwrap();
    }
}
