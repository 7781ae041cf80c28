//! What an operator sees and mends, as the CLI asks for it.

use axum::{Extension, Router, body::Body};
use berth_http::server::Peer;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use outbox::{HandlerError, Outbox, operator};
use serde_json::{Value, json};
use testkit::eventually;
use tls::SpiffeId;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::world::{CONSUMER, STREAM, World, event};

/// The operator of one side of a world.
struct Desk(Router);

impl Desk {
    async fn of_documents(world: &World, outbox: &Outbox) -> Self {
        let router = operator::router(world.documents.clone(), world.events(STREAM).await, outbox.clone());
        Self(router.layer(Extension(Peer(SpiffeId::new("test", operator::NAME).unwrap()))))
    }

    async fn of_items(world: &World, outbox: &Outbox) -> Self {
        let router = operator::router(world.items.clone(), world.events(CONSUMER).await, outbox.clone());
        Self(router.layer(Extension(Peer(SpiffeId::new("test", operator::NAME).unwrap()))))
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/internal/messaging/{path}"))
            .header(operator::WHO, "ann")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.ask("POST", path, body).await
    }
}

fn fine(_: &outbox::Event) -> Result<(), HandlerError> {
    Ok(())
}

#[tokio::test]
async fn nobody_but_an_operator_is_let_in() {
    let world = World::new().await;
    let router = operator::router(world.documents.clone(), world.events(STREAM).await, Outbox::default());
    let service = Peer(SpiffeId::new("test", "item-management").unwrap());
    for router in [router.clone(), router.layer(Extension(service))] {
        for (method, path) in [("GET", "outbox"), ("GET", "dead-letters/1"), ("POST", "dead-letters/1/discard")] {
            let (status, _) = Desk(router.clone()).ask(method, path, None).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        }
    }
}

#[tokio::test]
async fn the_outbox_is_seen_and_an_event_is_published_once_more() {
    let world = World::new().await;
    let desk = Desk::of_documents(&world, &Outbox::default()).await;
    let order = Uuid::now_v7();
    world.emit(order, 2).await;
    let state = desk.get("outbox").await;
    assert_eq!((&state["unpublished"], &state["stream"]), (&json!(2), &Value::Null));
    let owed = desk.get("outbox/events?unpublished=true").await;
    assert_eq!((&owed[0]["version"], &owed[0]["aggregate"]), (&json!(1), &json!(format!("order/{order}"))));
    let id = owed[0]["id"].as_str().unwrap();
    let (status, _) = desk.post(&format!("outbox/events/{id}/republish"), None).await;
    assert_eq!(status, StatusCode::CONFLICT, "it is owed anyway");

    let relay = world.relay().await;
    let consumer = world.consumer(fine).await;
    world.effects_of(2).await;
    world.settled().await;
    eventually("the state", async || {
        let state = desk.get("outbox").await;
        let there = &state["stream"];
        (there["last_sequence"] == 2 && there["server"]["last_sequence"] == 2).then_some(())
    })
    .await;
    let (status, _) = desk.post(&format!("outbox/events/{id}/republish"), None).await;
    assert_eq!(status, StatusCode::OK);
    // Although the event server has just had it.
    eventually("the event once more", async || (world.stream().await.len() == 3).then_some(())).await;
    world.settled().await;
    world.consumed().await;
    assert_eq!(world.effects().await.len(), 2);
    let event = desk.get(&format!("outbox/events/{id}")).await;
    assert_eq!((&event["stream_sequence"], &event["data"]), (&json!(3), &json!({ "n": 0 })));
    let done = desk.get("interventions").await;
    assert_eq!((&done[0]["operator"], &done[0]["action"]), (&json!("ann"), &json!("republish")));
    assert_eq!(done[0]["subject"], json!(format!("event {id}")));
    let (status, _) = desk.ask("GET", &format!("outbox/events/{}", Uuid::now_v7()), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    relay.stop().await;
    consumer.stop().await;
}

#[tokio::test]
async fn a_gap_that_nothing_fills_is_seen_and_skipped_by_a_person_alone() {
    let world = World::new().await;
    world.make_stream().await;
    let consumer = world.consumer(fine).await;
    let desk = Desk::of_items(&world, &consumer.outbox).await;
    let order = Uuid::now_v7();
    let late = event(order, 2);
    for version in [1, 4, 5] {
        world.inject(&event(order, version)).await;
    }
    let waiting = eventually("two to wait", async || {
        let waiting = desk.get("inbox/waiting").await;
        (waiting.as_array().unwrap().len() == 2).then_some(waiting)
    })
    .await;
    assert_eq!(waiting[0]["waits_for"], "versions 2 to 3, which have not come");
    assert_eq!(waiting[1]["waits_for"], "version 4");
    let known = desk.get(&format!("inbox/events/{}", waiting[0]["id"].as_str().unwrap())).await;
    assert_eq!(known["documents/items"]["parked"]["event"]["aggregateversion"], 4);

    let gap = |aggregate: String, accept_loss: bool| {
        Some(json!({ "consumer": "documents/items", "aggregate": aggregate, "accept_loss": accept_loss }))
    };
    let (status, _) = desk.post("inbox/skip", gap(format!("order/{order}"), false)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, _) = desk.post("inbox/skip", gap("order".into(), true)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, _) = desk.post("inbox/skip", gap(format!("order/{}", Uuid::now_v7()), true)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(world.effects().await.len(), 1);

    let (status, given_up) = desk.post("inbox/skip", gap(format!("order/{order}"), true)).await;
    assert_eq!((status, given_up), (StatusCode::OK, json!({ "from": 2, "to": 3 })));
    assert_eq!(world.effects_of(3).await, [(order, 1), (order, 4), (order, 5)]);
    // What was given up and comes after all is not lost without a word.
    world.inject(&late).await;
    eventually("the late one", async || {
        let letters = desk.get("dead-letters").await;
        (letters[0]["message_id"] == json!(late.id)).then_some(())
    })
    .await;
    assert_eq!(desk.get("interventions").await[0]["action"], "skip");
    let state = desk.get("inbox").await;
    assert_eq!((&state[0]["parked"], &state[0]["dead_letters"]), (&json!(0), &json!(1)));
    consumer.stop().await;
}

#[tokio::test]
async fn what_came_before_an_adopted_beginning_is_taken_as_handled() {
    let world = World::new().await;
    world.make_stream().await;
    let consumer = world.consumer(fine).await;
    let desk = Desk::of_items(&world, &consumer.outbox).await;
    let order = Uuid::now_v7();
    for version in [1, 3] {
        world.inject(&event(order, version)).await;
    }
    eventually("one to wait", async || (desk.get("inbox/waiting").await.as_array().unwrap().len() == 1).then_some(()))
        .await;
    let gap = json!({ "consumer": "documents/items", "aggregate": format!("order/{order}"), "accept_loss": true });
    assert_eq!(desk.post("inbox/adopt", Some(gap)).await.0, StatusCode::OK);
    assert_eq!(world.effects_of(2).await, [(order, 1), (order, 3)]);
    world.inject(&event(order, 2)).await;
    world.consumed().await;
    assert_eq!(desk.get("dead-letters").await, json!([]));
    consumer.stop().await;
}

#[tokio::test]
async fn dead_letters_are_read_replayed_and_discarded() {
    let world = World::new().await;
    world.make_stream().await;
    let refusing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let refuses = std::sync::Arc::clone(&refusing);
    let consumer = world
        .consumer(move |_| match refuses.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(HandlerError::Permanent("not now".into())),
            false => Ok(()),
        })
        .await;
    let desk = Desk::of_items(&world, &consumer.outbox).await;
    let order = Uuid::now_v7();
    world.inject(&event(order, 1)).await;
    world.inject_raw("documents.order.placed", b"no JSON").await;
    let letters = eventually("two dead letters", async || {
        let letters = desk.get("dead-letters").await;
        (letters.as_array().unwrap().len() == 2).then_some(letters)
    })
    .await;
    let id_of = |reason: &str| {
        let mut letters = letters.as_array().unwrap().iter();
        letters.find(|letter| letter["reason"].as_str().unwrap().contains(reason)).unwrap()["id"].as_i64().unwrap()
    };
    let (refused, malformed) = (id_of("not now"), id_of("not a CloudEvent"));
    assert_eq!(desk.get(&format!("dead-letters/{refused}")).await["message"]["aggregateversion"], 1);
    assert_eq!(desk.get(&format!("dead-letters/{malformed}")).await["text"], "no JSON");

    refusing.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(desk.post(&format!("dead-letters/{refused}/replay"), None).await.0, StatusCode::OK);
    assert_eq!(world.effects_of(1).await, [(order, 1)]);
    assert_eq!(desk.post(&format!("dead-letters/{malformed}/discard"), None).await.0, StatusCode::OK);
    assert_eq!(desk.get("dead-letters").await, json!([]));
    assert_eq!(desk.get("dead-letters?resolved=true").await.as_array().unwrap().len(), 2);
    assert_eq!(desk.post(&format!("dead-letters/{malformed}/replay"), None).await.0, StatusCode::CONFLICT);
    assert_eq!(desk.post("dead-letters/4711/replay", None).await.0, StatusCode::NOT_FOUND);
    consumer.stop().await;
}
