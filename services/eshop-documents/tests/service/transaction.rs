//! The order transaction over a real event server: this service on one side, on the other an item management that is
//! small but keeps its word.

use std::time::Duration;

use database::{Database, Statements as _, Transaction};
use eshop_documents::{messages, sweeper};
use futures_util::future::join_all;
use outbox::{Consumer, Event, Events, Handler, HandlerError, NewEvent, Outbox, Relay, RelayOptions};
use serde_json::json;
use testkit::{Nats, eventually};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::world::{Answer, Service, World, alice, carol, euros, new_key, selection};

/// Holds every order in a table of its own; one that asks for more than 10 of anything is refused.
struct Keeper;

impl Handler for Keeper {
    async fn handle(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        let id = event.aggregate.id;
        let set = async |state: &str| {
            let sql = "INSERT INTO held VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET state = $2";
            tx.run(sql, &[&id, &state]).await
        };
        let known: Option<String> =
            tx.optional("SELECT state FROM held WHERE id = $1", &[&id]).await?.map(|row| row.get(0));
        let (answer, data) = match (event.subject.as_str(), known.as_deref()) {
            ("documents.stock.reserve", Some("released")) => {
                ("refused", json!({ "order_id": id, "reason": "released", "lines": [] }))
            }
            ("documents.stock.reserve", None) => {
                let wanted = &event.data["lines"][0];
                if wanted["quantity"].as_i64() > Some(10) {
                    set("refused").await?;
                    let line =
                        json!({ "item_id": wanted["item_id"], "requested": wanted["quantity"], "available": 10 });
                    ("refused", json!({ "order_id": id, "reason": "insufficient-stock", "lines": [line] }))
                } else {
                    set("held").await?;
                    ("reserved", json!({ "order_id": id }))
                }
            }
            ("documents.stock.take", Some("held")) => {
                set("taken").await?;
                ("taken", json!({ "order_id": id }))
            }
            ("documents.stock.release", None | Some("held")) => {
                set("released").await?;
                ("released", json!({ "order_id": id }))
            }
            ("documents.stock.return", None) => {
                set("returned").await?;
                ("returned", json!({ "credit_note_id": id }))
            }
            impossible => return Err(HandlerError::Permanent(format!("{impossible:?}"))),
        };
        let subject = format!("items.reservation.{answer}");
        let event = NewEvent {
            subject: &subject,
            aggregate_id: id,
            saga: event.saga,
            initiator: None,
            trace: event.trace,
            data,
        };
        Outbox::put(tx, event).await?;
        Ok(())
    }
}

/// Both sides with what runs beside their requests.
struct Shop {
    service: Service,
    nats: Nats,
    /// Item management's database.
    stock: Database,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Shop {
    /// The documents side runs; item management does not yet.
    async fn open() -> Self {
        let (service, nats) = tokio::join!(Service::start(), Nats::start());
        let World { postgres, database, outbox, store } = &service.world;
        let at = postgres.database("items").await;
        let stock = Database::at(&at.url, &at.password).unwrap();
        let stop = CancellationToken::new();
        Outbox::migrate(&stock, &stop).await.unwrap();
        stock
            .get()
            .await
            .unwrap()
            .batch_execute("CREATE TABLE held (id uuid PRIMARY KEY, state text NOT NULL)")
            .await
            .unwrap();

        let events = Events::at(&nats.url(), "eshop-documents").await.unwrap();
        let (database, outbox) = (database.clone(), outbox.clone());
        let relay =
            Relay::new(database.clone(), events.clone(), outbox.clone(), RelayOptions::emitting(messages::EMITTED));
        let answers = Consumer::new(database, events, outbox, messages::STREAM, messages::SUBJECTS, messages::Answers);
        let until = stop.clone();
        tokio::spawn(async move { relay.run(until).await });
        tokio::spawn(answers.run(stop.clone()));
        tokio::spawn(sweeper::run(store.clone(), stop.clone()));
        Self { service, nats, stock, _stop_on_drop: stop.clone().drop_guard(), stop }
    }

    /// Item management begins to keep stock.
    async fn keep_stock(&self) {
        let stop = self.stop.clone();
        let events = Events::at(&self.nats.url(), messages::STREAM).await.unwrap();
        let outbox = Outbox::default();
        let relay = Relay::new(self.stock.clone(), events.clone(), outbox.clone(), RelayOptions::emitting(["items.>"]));
        let keeper =
            Consumer::new(self.stock.clone(), events, outbox, "eshop-documents", ["documents.stock.*"], Keeper);
        let until = stop.clone();
        tokio::spawn(async move { relay.run(until).await });
        tokio::spawn(keeper.run(stop));
    }

    /// Waits until a saga is in this state, and item management's half in that.
    async fn settles(&self, id: Uuid, saga: &str, held: &str) {
        eventually(&format!("{id} to be {saga} here and {held} there"), async || {
            let here = self.service.world.database.get().await.ok()?;
            let here: String = here.one("SELECT state::text FROM sagas WHERE id = $1", &[&id]).await.ok()?.get(0);
            let there = self.stock.get().await.ok()?;
            let there = there.optional("SELECT state FROM held WHERE id = $1", &[&id]).await.ok()??;
            (here == saga && there.get::<_, &str>(0) == held).then_some(())
        })
        .await;
    }

    async fn dead_letters(&self) -> i64 {
        let mut total = 0;
        for database in [&self.service.world.database, &self.stock] {
            let row = database.get().await.unwrap().one("SELECT count(*) FROM dead_letters", &[]).await.unwrap();
            total += row.get::<_, i64>(0);
        }
        total
    }
}

#[tokio::test]
async fn orders_and_stock_agree_in_the_end() {
    let shop = Shop::open().await;
    shop.keep_stock().await;
    let Shop { service, .. } = &shop;
    let item = service.items.item(euros(100));

    let orders = join_all((0..20).map(async |n| {
        let (key, quantity) = (format!("k{n}"), if n % 4 == 0 { 11 } else { 1 });
        (quantity, service.order(&key, Some("wait=20"), item, quantity).await)
    }))
    .await;
    for (quantity, answer) in orders {
        if quantity > 10 {
            let Answer { body, .. } = answer.expect(409);
            assert_eq!(body["errors"][0]["message"], "11 ordered, 10 available");
            shop.settles(serde_json::from_value(body["document"].clone()).unwrap(), "rejected", "refused").await;
        } else {
            shop.settles(answer.expect(201).id(), "taken", "taken").await;
        }
    }
    assert_eq!(shop.dead_letters().await, 0);
}

/// Where nothing happens the connections to the event server wait in another way than between messages.
#[tokio::test]
async fn after_a_quiet_while_orders_are_answered_as_ever() {
    let shop = Shop::open().await;
    shop.keep_stock().await;
    let item = shop.service.items.item(euros(100));
    for key in ["first", "second"] {
        let order = shop.service.order(key, Some("wait=15"), item, 1).await.expect(201).id();
        shop.settles(order, "taken", "taken").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test]
async fn what_was_called_off_meanwhile_is_released_even_if_it_was_never_heard_of() {
    let shop = Shop::open().await;
    let Shop { service, .. } = &shop;
    let item = service.items.item(euros(100));
    let [late, unwanted, kept] = ["late", "unwanted", "kept"].map(|key| service.order(key, None, item, 1));
    let (late, unwanted, kept) =
        (late.await.expect(202).id(), unwanted.await.expect(202).id(), kept.await.expect(202).id());
    service.world.let_time_pass(late).await;
    service.post(&alice(), &format!("/documents/{unwanted}/cancel"), &[], &json!(null)).await.expect(200);
    eventually("the deadline to be noticed", async || {
        let shown = service.get(&alice(), &format!("/documents/{late}")).await;
        (shown.body["state"] == "CANCELLED" && shown.body["reason"] == "deadline").then_some(())
    })
    .await;

    shop.keep_stock().await;
    shop.settles(late, "released", "released").await;
    shop.settles(unwanted, "released", "released").await;
    shop.settles(kept, "taken", "taken").await;
    assert_eq!(shop.dead_letters().await, 0);
}

#[tokio::test]
async fn credited_goods_find_their_way_back_through_a_restart_of_everything() {
    let mut shop = Shop::open().await;
    shop.keep_stock().await;
    let item = shop.service.items.item(euros(100));
    let order = shop.service.order("k", Some("wait=20"), item, 3).await.expect(201).id();
    let invoice =
        shop.service.post(&carol(), &format!("/documents/{order}/invoice"), &[], &json!(null)).await.expect(201).id();
    shop.settles(order, "taken", "taken").await;

    shop.nats.kill();
    let store = &shop.service.world.store;
    let note =
        store.credit(invoice, &selection(&[(item, 2)]), &new_key("carol"), &Default::default()).await.unwrap().unwrap();
    shop.service.world.postgres.kill();
    shop.nats.restart().await;
    shop.service.world.postgres.restart().await;
    shop.settles(note.head.id, "returned", "returned").await;
    let shown = eventually("the credit note to be readable", async || {
        let shown = shop.service.get(&carol(), &format!("/documents/{}", note.head.id)).await;
        (shown.status == 200).then_some(shown)
    })
    .await;
    assert_eq!(shown.body["state"], "RETURNED");
    assert_eq!(shop.dead_letters().await, 0);
}
