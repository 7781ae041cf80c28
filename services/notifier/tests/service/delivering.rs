//! From an event to a subscriber who has verified it, whatever happens in between.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde_json::json;
use testkit::{Receiver, eventually, verify};

use crate::world::{World, alice, carol, order_event};

#[tokio::test]
async fn a_subscriber_gets_signed_messages_and_can_verify_them() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, secret) = world.subscribe_at(&alice(), &receiver).await;
    let delivering = world.deliver();
    let event = order_event("documents.order.placed", Some("alice"));
    world.happens(&event).await;
    let message = receiver.wait_for(1).await.remove(0);
    verify(&secret, &message).unwrap();
    assert_eq!(message.target, "/hooks?a=b");
    assert_eq!(message.headers["webhook-id"], format!("msg_{}", event.id));
    assert_eq!(message.headers["content-type"], "application/cloudevents+json");
    let body = message.json();
    assert_eq!((&body["type"], &body["data"]), (&json!("documents.order.placed"), &event.data));
    assert!(body.get("sagaid").is_none(), "what is for the inside alone stays there");
    let delivery = world.becomes(&alice(), id, "delivered").await;
    assert_eq!((&delivery["attempts"], &delivery["last_status"]), (&json!(1), &json!(204)));

    let mut forged = message.clone();
    forged.body = forged.body.replace("alice", "malice");
    assert!(verify(&secret, &forged).is_err(), "another body");
    let (_, other) = world.subscribe_at(&alice(), &receiver).await;
    assert!(verify(&other, &message).is_err(), "another subscription's secret");
    delivering.stop().await;
}

#[tokio::test]
async fn a_test_message_is_signed_like_every_other() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, secret) = world.subscribe_at(&alice(), &receiver).await;
    let delivering = world.deliver();
    let told =
        world.call(Some(&alice()), Method::POST, &format!("/subscriptions/{id}/test"), &[], None).await.expect(202);
    assert_eq!(told.body["event_type"], "notifications.subscription.tested");
    let message = receiver.wait_for(1).await.remove(0);
    verify(&secret, &message).unwrap();
    assert_eq!(message.json()["data"], json!({ "subscription_id": id }));
    world.becomes(&alice(), id, "delivered").await;
    delivering.stop().await;
    world.patch(&alice(), &format!("/subscriptions/{id}"), "*", &json!({ "state": "paused" })).await.expect(200);
    world
        .call(Some(&alice()), Method::POST, &format!("/subscriptions/{id}/test"), &[], None)
        .await
        .problem(409, "conflict");
}

/// Each failure is one attempt; the same message id each time; another process goes on where the first one stopped.
#[tokio::test]
async fn what_failed_is_tried_again_by_whoever_is_there() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, secret) = world.subscribe_at(&alice(), &receiver).await;
    receiver.answer_next([500, 302, 404, 503]);
    let slow = notifier::deliveries::Deliverer {
        patience: notifier::domain::Patience { failures: 100, ..world.deliverer().patience },
        ..world.deliverer()
    };
    let delivering = World::run(slow.clone());
    world.happens(&order_event("documents.order.placed", Some("alice"))).await;
    receiver.wait_for(2).await;
    delivering.stop().await;
    let delivering = World::run(slow);
    let messages = receiver.wait_for(5).await;
    let delivery = world.becomes(&alice(), id, "delivered").await;
    assert_eq!(delivery["attempts"], 5);
    assert!(messages.iter().all(|message| message.target == "/hooks?a=b"), "no redirect is followed: {messages:?}");
    for message in &messages {
        verify(&secret, message).unwrap();
        assert_eq!(message.headers["webhook-id"], messages[0].headers["webhook-id"]);
    }
    delivering.stop().await;
}

#[tokio::test]
async fn a_subscriber_who_never_answers_well_is_given_up_and_can_come_back() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe_at(&alice(), &receiver).await;
    let path = format!("/subscriptions/{id}");
    receiver.answer_next([500; 4]);
    let delivering = world.deliver();
    world.happens(&order_event("documents.order.placed", Some("alice"))).await;
    let given_up = eventually("the subscription to be disabled", async || {
        let answer = world.get(&alice(), &path).await.expect(200);
        (answer.body["state"] == "disabled").then_some(answer)
    })
    .await;
    assert!(given_up.body["disabled_for"].as_str().unwrap().contains("answered 500"), "{:#}", given_up.body);
    assert!(world.emitted().await.contains(&"notifications.subscription.disabled".to_owned()));
    world.happens(&order_event("documents.order.confirmed", Some("alice"))).await;
    assert_eq!((world.count("deliveries").await, receiver.received().len()), (1, 4), "nothing is told meanwhile");

    world.patch(&alice(), &path, &given_up.etag(), &json!({ "state": "active" })).await.expect(200);
    let delivery = world.becomes(&alice(), id, "delivered").await;
    assert_eq!(delivery["attempts"], 5, "what was pending is told after all");
    let back = world.get(&alice(), &path).await.expect(200);
    assert!(back.body.get("failing_since").is_none() && back.body.get("disabled_for").is_none());
    delivering.stop().await;
}

#[tokio::test]
async fn whoever_says_gone_is_believed() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, _) = world.subscribe_at(&alice(), &receiver).await;
    receiver.answer_next([410]);
    let delivering = world.deliver();
    world.happens(&order_event("documents.order.placed", Some("alice"))).await;
    eventually("the subscription to be disabled", async || {
        let answer = world.get(&alice(), &format!("/subscriptions/{id}")).await.expect(200);
        (answer.body["disabled_for"] == "the subscriber answered 410 Gone").then_some(())
    })
    .await;
    delivering.stop().await;
}

#[tokio::test]
async fn attempts_end_and_what_ended_is_replayed_on_demand() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let (id, secret) = world.subscribe_at(&carol(), &receiver).await;
    receiver.answer_next([500; 6]);
    let patience = notifier::domain::Patience { failures: 100, ..world.deliverer().patience };
    let delivering = World::run(notifier::deliveries::Deliverer { patience, ..world.deliverer() });
    world.happens(&order_event("documents.order.placed", Some("alice"))).await;
    let failed = world.becomes(&carol(), id, "failed").await;
    assert_eq!((&failed["attempts"], &failed["last_error"]), (&json!(6), &json!("answered 500 Internal Server Error")));
    world.happens(&order_event("documents.order.placed", Some("bob"))).await;
    receiver.wait_for(7).await;

    let path = format!("/subscriptions/{id}/deliveries");
    let one = format!("{path}/{}/replay", failed["id"].as_str().unwrap());
    world.call(Some(&carol()), Method::POST, &one, &[], None).await.expect(202);
    let message = receiver.wait_for(8).await.remove(7);
    verify(&secret, &message).unwrap();
    assert_eq!(message.headers["webhook-id"], format!("msg_{}", failed["event_id"].as_str().unwrap()));

    let replay =
        async |body| world.post(&carol(), &format!("{path}/replay"), &body).await.expect(202).body["replayed"].clone();
    eventually("both to be delivered", async || {
        let all = world.deliveries(&carol(), id).await;
        all.iter().all(|delivery| delivery["state"] == "delivered").then_some(())
    })
    .await;
    assert_eq!(replay(json!({ "from": "2026-01-01T00:00:00Z", "state": "failed" })).await, 0);
    assert_eq!(replay(json!({ "from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z" })).await, 0);
    assert_eq!(replay(json!({ "from": "2026-01-01T00:00:00Z", "until": Timestamp::now() })).await, 2);
    receiver.wait_for(10).await;
    delivering.stop().await;
}

/// One target that hangs keeps nobody else from being told, and is not asked more than a few times at once.
#[tokio::test]
async fn a_target_that_hangs_holds_up_nobody_else() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", hanging.local_addr().unwrap());
    for _ in 0..2 {
        world.subscribe(&carol(), &url, &[">"]).await;
    }
    world.subscribe_at(&carol(), &receiver).await;
    for _ in 0..20 {
        world.happens(&order_event("documents.order.placed", Some("alice"))).await;
    }
    let sender = notifier::sender::Sender::new(crate::world::loopback(), Duration::from_secs(3600));
    let delivering = World::run(notifier::deliveries::Deliverer { sender, ..world.deliverer() });
    receiver.wait_for(20).await;
    let mut connections = Vec::new();
    while let Ok(Ok((connection, _))) = tokio::time::timeout(Duration::from_millis(500), hanging.accept()).await {
        connections.push(connection);
    }
    assert_eq!(connections.len(), 4);
    drop((connections, hanging));
    delivering.stop().await;
}
