//! Subscriptions over HTTP: what is shown, changed, and refused.

use http::Method;
use notifier::domain::{MAX_SUBSCRIPTIONS, MAX_URL};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, admin, alice, carol, order_event};

const URL: &str = "https://shop.example/hooks";

#[tokio::test]
async fn a_secret_is_shown_once_and_stored_encrypted() {
    let world = World::new().await;
    let answer =
        world.post(&alice(), "/subscriptions", &json!({ "url": URL, "event_types": ["documents.order.*"] })).await;
    let answer = answer.expect(201);
    let path = format!("/subscriptions/{}", answer.id());
    assert_eq!((answer.header("location"), answer.header("etag")), (&*path, "\"1\""));
    let secret = answer.body["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    let again = world.get(&alice(), &path).await.expect(200);
    assert!(again.body.get("secret").is_none() && !again.body.to_string().contains(secret));
    assert_eq!(again.body["owner"], "alice");
    let held = world.call(Some(&alice()), Method::GET, &path, &[("if-none-match", "\"1\"")], None).await;
    assert_eq!(held.status, 304);

    use database::Statements as _;
    let client = world.database.get().await.unwrap();
    let sealed: Vec<u8> = client.one("SELECT secret FROM subscriptions", &[]).await.unwrap().get(0);
    let name = notifier::store::secret_name(answer.id());
    let opened = notifier::signature::Secret::from_bytes(&world.sealer.open(&name, &sealed).unwrap()).unwrap();
    assert_eq!(*opened.text(), secret);
    assert!(!sealed.windows(32).any(|window| window == opened.expose()));
}

#[tokio::test]
async fn a_change_needs_the_version_it_is_based_on() {
    let world = World::new().await;
    let (id, _) = world.subscribe(&alice(), URL, &["documents.order.*"]).await;
    let path = format!("/subscriptions/{id}");
    let change = json!({ "event_types": ["documents.invoice.*", "documents.invoice.*"] });
    world.call(Some(&alice()), Method::PATCH, &path, &[], Some(&change)).await.problem(428, "precondition-required");
    world.patch(&alice(), &path, "\"7\"", &change).await.problem(412, "precondition-failed");
    let changed = world.patch(&alice(), &path, "\"1\"", &change).await.expect(200);
    assert_eq!((changed.etag(), &changed.body["event_types"]), ("\"2\"".to_owned(), &json!(["documents.invoice.*"])));
    assert_eq!(changed.body["url"], URL, "what is not given stays");
    world.patch(&alice(), &path, "\"1\"", &change).await.problem(412, "precondition-failed");
    let remove =
        async |etag: &str| world.call(Some(&alice()), Method::DELETE, &path, &[("if-match", etag)], None).await;
    world.call(Some(&alice()), Method::DELETE, &path, &[], None).await.problem(428, "precondition-required");
    remove("\"1\"").await.problem(412, "precondition-failed");
    remove("\"2\"").await.expect(204);
    world.get(&alice(), &path).await.expect(404);
    assert_eq!(
        world.emitted().await,
        ["created", "updated", "deleted"].map(|event| format!("notifications.subscription.{event}"))
    );
}

/// An admin who mends a clerk's or a customer's subscription leaves it theirs.
#[tokio::test]
async fn whoever_changes_a_subscription_it_stays_its_owners() {
    let world = World::new().await;
    let (id, _) = world.subscribe(&alice(), URL, &["documents.order.*"]).await;
    let path = format!("/subscriptions/{id}");
    let changed = world.patch(&admin(), &path, "*", &json!({ "url": "https://shop.example/other" })).await.expect(200);
    assert_eq!((&changed.body["owner"], &changed.body["everybodys"]), (&json!("alice"), &json!(false)));
    world.happens(&order_event("documents.order.placed", Some("bob"))).await;
    assert_eq!(world.count("deliveries").await, 0);
    let clerk = auth::testing::shopper("alice", &["clerk"]);
    let promoted = world.patch(&clerk, &path, "*", &json!({})).await.expect(200);
    assert_eq!(promoted.body["everybodys"], true);
}

#[tokio::test]
async fn bad_input_is_named_and_changes_nothing() {
    let world = World::new().await;
    let (id, _) = world.subscribe(&alice(), URL, &["documents.order.*"]).await;
    let before = (world.emitted().await, world.count("subscriptions").await);
    let new = |url: Value, types: Value| json!({ "url": url, "event_types": types });
    let types = json!([">"]);
    let posts = [
        (json!([]), 422, "pointer"),
        (json!({}), 422, "url"),
        (json!({ "url": URL }), 422, "event_types"),
        (json!({ "url": URL, "event_types": [">"], "secret": "mine" }), 422, "secret"),
        (new(json!(7), types.clone()), 422, "/url"),
        (new(json!("nonsense"), types.clone()), 422, "/url"),
        (new(json!("http://shop.example/\u{0}"), types.clone()), 422, "/url"),
        (new(json!("http://8.8.8.8/"), types.clone()), 422, "https://"),
        (new(json!("https://10.0.0.1/"), types.clone()), 422, "public"),
        (new(json!("https://[::1]/"), types.clone()), 422, "public"),
        (new(json!("https://user:password@shop.example/"), types.clone()), 422, "password"),
        (new(json!(format!("https://shop.example/{}", "a".repeat(MAX_URL))), types), 422, "longer"),
        (new(json!(URL), json!([])), 422, "/event_types"),
        (new(json!(URL), json!(vec![">"; 33])), 422, "/event_types"),
        (new(json!(URL), json!([">", "orders"])), 422, "/event_types/1"),
        (new(json!(URL), json!([">", 1])), 422, "/event_types/1"),
        (new(json!(URL), json!("documents.order.*")), 422, "/event_types"),
    ];
    for (body, status, named) in posts {
        let answer = world.post(&alice(), "/subscriptions", &body).await.expect(status);
        assert!(answer.body.to_string().contains(named), "{body:.200}: {:#}", answer.body);
    }
    let path = format!("/subscriptions/{id}");
    let nowhere = format!("/subscriptions/{}", Uuid::nil());
    let long_ago = "2026-01-01T00:00:00Z";
    let calls = [
        (Method::GET, "/subscriptions?limit=0".into(), None, 400, "limit"),
        (Method::GET, "/subscriptions?cursor=!!".into(), None, 400, "cursor"),
        (Method::GET, "/subscriptions?colour=red".into(), None, 400, "colour"),
        (Method::GET, "/subscriptions/x".into(), None, 400, "id"),
        (Method::GET, nowhere.clone(), None, 404, "no such"),
        (Method::DELETE, nowhere.clone(), None, 404, "no such"),
        (Method::POST, format!("{nowhere}/test"), None, 404, "no such"),
        (Method::PATCH, path.clone(), Some(json!({ "state": "disabled" })), 422, "/state"),
        (Method::PATCH, path.clone(), Some(json!({ "url": "https://127.0.0.2.nip/#x" })), 422, "/url"),
        (Method::PATCH, path.clone(), Some(json!({ "event_types": [] })), 422, "/event_types"),
        (Method::PATCH, path.clone(), Some(json!({ "owner": "bob" })), 422, "owner"),
        (Method::GET, format!("{path}/deliveries?state=lost"), None, 400, "state"),
        (Method::GET, format!("{path}/deliveries?limit=x"), None, 400, "limit"),
        (Method::POST, format!("{path}/deliveries/replay"), Some(json!({})), 422, "from"),
        (Method::POST, format!("{path}/deliveries/replay"), Some(json!({ "from": "x" })), 422, "/from"),
        (
            Method::POST,
            format!("{path}/deliveries/replay"),
            Some(json!({ "from": long_ago, "until": long_ago })),
            422,
            "/until",
        ),
        (Method::POST, format!("{path}/deliveries/x/replay"), None, 400, "delivery"),
        (Method::POST, format!("{path}/deliveries/{}/replay", Uuid::nil()), None, 404, "no such delivery"),
    ];
    for (method, path, body, status, named) in calls {
        let answer = world.call(Some(&alice()), method.clone(), &path, &[("if-match", "*")], body.as_ref()).await;
        let answer = answer.expect(status);
        assert!(answer.body.to_string().contains(named), "{method} {path}: {:#}", answer.body);
    }
    assert_eq!((world.emitted().await, world.count("subscriptions").await), before);
}

#[tokio::test]
async fn nobody_has_more_than_their_share() {
    let world = World::new().await;
    for _ in 0..MAX_SUBSCRIPTIONS {
        world.subscribe(&alice(), URL, &[">"]).await;
    }
    let body = json!({ "url": URL, "event_types": [">"] });
    world.post(&alice(), "/subscriptions", &body).await.problem(409, "too-many-subscriptions");
    world.post(&carol(), "/subscriptions", &body).await.expect(201);
}
