//! Who is told of what.

use auth::{
    Principal,
    testing::{shopper, signed_in_only},
};

use crate::world::{World, admin, alice, bob, carol, order_event};

const EVENTS: [(&str, Option<&str>); 5] = [
    ("documents.order.placed", Some("alice")),
    ("documents.order.placed", Some("bob")),
    ("documents.stock.reserve", None),
    ("items.item.created", None),
    ("documents.access.refused", None),
];

/// Which of [`EVENTS`] somebody is told of, by their place.
async fn told(world: &World, who: &Principal, types: &[&str]) -> Vec<usize> {
    let (id, _) = world.subscribe(&shopper(&who.subject, &["customer"]), "https://shop.example/", types).await;
    // The roles that count are those of the last change.
    let roles: Vec<String> = who.roles.iter().cloned().collect();
    let scopes: Vec<String> = who.scopes.iter().cloned().collect();
    let everybodys = roles.iter().any(|role| role != "customer");
    use database::Statements as _;
    let client = world.database.get().await.unwrap();
    let sql = "UPDATE subscriptions SET roles = $2, scopes = $3, everybodys = $4 WHERE id = $1";
    client.run(sql, &[&id, &roles, &scopes, &everybodys]).await.unwrap();
    let mut told = Vec::new();
    for (place, (subject, customer)) in EVENTS.into_iter().enumerate() {
        let before = world.count("deliveries").await;
        world.happens(&order_event(subject, customer)).await;
        if world.count("deliveries").await > before {
            told.push(place);
        }
    }
    client.batch_execute("DELETE FROM subscriptions").await.unwrap();
    told
}

#[tokio::test]
async fn customers_are_told_of_their_own_and_the_staff_of_everybodys() {
    let world = World::new().await;
    for (who, types, expected) in [
        (alice(), &[">"][..], &[0][..]),
        (alice(), &["documents.order.*"], &[0]),
        (alice(), &["documents.invoice.*", "items.>"], &[]),
        (bob(), &[">"], &[1]),
        (carol(), &[">"], &[0, 1, 2, 3]),
        (carol(), &["documents.order.placed", "documents.access.*"], &[0, 1]),
        (admin(), &[">"], &[0, 1, 2, 3, 4]),
        (shopper("alice", &[]), &[">"], &[]),
        (shopper("dave", &["auditor"]), &[">"], &[]),
        (signed_in_only(carol()), &[">"], &[]),
        (signed_in_only(alice()), &[">"], &[]),
    ] {
        assert_eq!(told(&world, &who, types).await, expected, "{who:?} {types:?}");
    }
}

#[tokio::test]
async fn an_event_that_comes_twice_is_told_once_and_nothing_is_told_while_paused() {
    let world = World::new().await;
    let (id, _) = world.subscribe(&alice(), "https://shop.example/", &[">"]).await;
    let event = order_event("documents.order.placed", Some("alice"));
    world.happens(&event).await;
    world.happens(&event).await;
    assert_eq!((world.count("deliveries").await, world.count("events").await), (1, 1));
    let path = format!("/subscriptions/{id}");
    world.patch(&alice(), &path, "*", &serde_json::json!({ "state": "paused" })).await.expect(200);
    world.happens(&order_event("documents.order.placed", Some("alice"))).await;
    assert_eq!(world.count("deliveries").await, 1);
}
