//! The group that is told of everything: the audit that remembers it, the notifier that passes it on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test")]

use database::{Database, PoolLimits};
use e2e::{Answer, Caller, Mesh, Shop};
use reqwest::Method;
use runtime::{credentials::Credentials, settings::Settings};
use serde_json::{Value, json};
use testkit::{Receiver, eventually, verify};
use tls::Identity;

#[tokio::test]
async fn what_happens_is_remembered_and_told() {
    // Subscribers of tests listen on the loopback interface, where nobody else's may.
    let mesh = Mesh::up_with(|declaration| {
        let notifier = declaration["services"]["notifier"].as_table_mut().unwrap();
        let environment = toml::Table::from_iter([("NOTIFIER_ALLOWED_NETWORKS".to_owned(), "127.0.0.1/32".into())]);
        notifier.insert("environment".into(), environment.into());
    })
    .await;
    let (shop, dave) = (Shop::open(&mesh), mesh.user("dave"));
    let order = a_subscriber_is_told_of_her_order_and_of_no_other(&shop).await;
    the_audit_has_it(&dave, &order).await;
    refusals_are_in_the_audit(&mesh, &shop, &dave).await;
    a_row_that_was_tampered_with_is_located(&mesh, &dave).await;
}

/// Gives the order's id.
async fn a_subscriber_is_told_of_her_order_and_of_no_other(shop: &Shop) -> String {
    let receiver = Receiver::start().await;
    let wish = |url: &str| json!({ "url": url, "event_types": ["documents.order.*"] });
    let inside = shop.alice.post("/subscriptions", &wish("https://169.254.169.254/latest/meta-data")).await.expect(422);
    assert!(inside.text("/errors/0/message").contains("public address"), "{:#}", inside.body);
    let subscribed = shop.alice.post("/subscriptions", &wish(&receiver.url("/hooks"))).await.expect(201);
    let item = shop.item(10).await;
    shop.carol.post_once("/documents", "carols", &Shop::order_of(&item, 1)).await.expect(202);
    let order = shop.order(&item, 2, 20).await.expect(201).text("/id").to_owned();
    let messages = receiver.wait_for(2).await;
    let mut types: Vec<String> = Vec::new();
    for message in &messages {
        verify(subscribed.text("/secret"), message).unwrap();
        let event = message.json();
        assert_eq!(event["data"]["order_id"], *order, "only her own: {event:#}");
        types.push(event["type"].as_str().unwrap().to_owned());
    }
    types.sort();
    assert_eq!(types, ["documents.order.confirmed", "documents.order.placed"]);
    let deliveries = format!("/subscriptions/{}/deliveries", subscribed.text("/id"));
    eventually("both deliveries to be noted", async || {
        let page = shop.alice.get(&deliveries).await.expect(200);
        let delivered = |item: &Value| item["state"] == "delivered" && item["last_status"] == 204;
        (page.body["items"].as_array().unwrap().iter().filter(|item| delivered(item)).count() == 2).then_some(())
    })
    .await;
    shop.bob.get(&deliveries).await.expect(404);
    order
}

async fn the_audit_has_it(dave: &Caller, order: &str) {
    let path = format!("/audit?subject=order/{order}");
    let page = eventually("the order's events to be in the audit", async || {
        let page = dave.get(&path).await.expect(200);
        (page.body["items"].as_array().unwrap().len() >= 2).then_some(page)
    })
    .await;
    let types: Vec<&str> =
        page.body["items"].as_array().unwrap().iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["documents.order.confirmed", "documents.order.placed"], "the newest first");
    let verification = dave.get("/audit/verify").await.expect(200);
    assert_eq!(verification.body["verified"], true, "{:#}", verification.body);
    assert!(verification.number("/entries") > 5);
}

async fn refusals_are_in_the_audit(mesh: &Mesh, shop: &Shop, dave: &Caller) {
    shop.alice.get("/audit").await.expect(403);
    shop.mallory.get("/items").await.expect(403);
    shop.bob.post("/items", &json!({})).await.expect(403);
    mesh.anonymous().get("/documents").await.expect(401);
    let forged = mesh.anonymous().with_token("e30.e30.AAAA");
    Answer::of(forged.request(Method::GET, "/items")).await.expect(401);
    for (kind, subject) in [
        ("audit.access.refused", "Audit/audit"),
        ("items.access.refused", "Catalogue/items"),
        ("gateway.access.refused", "GET /documents"),
        ("gateway.access.refused", "GET /items"),
    ] {
        let entry = eventually(&format!("{kind} of {subject} to be in the audit"), async || {
            let page = dave.get(&format!("/audit?type={kind}&limit=100")).await.expect(200);
            page.body["items"].as_array().unwrap().iter().find(|entry| entry["subject"] == subject).cloned()
        })
        .await;
        assert!(entry["content"].as_str().unwrap().contains("\"count\":"), "{entry:#}");
    }
    let entries = dave.get("/audit?type=items.access.refused").await.expect(200);
    assert_eq!(entries.body["items"].as_array().unwrap().len(), 2, "mallory's and bob's: {:#}", entries.body);
}

/// By the owner of the table, who can take its guards away.
async fn a_row_that_was_tampered_with_is_located(mesh: &Mesh, dave: &Caller) {
    let victim =
        dave.get("/audit?limit=100").await.expect(200).body["items"].as_array().unwrap().last().unwrap()["seq"].clone();
    let sql = format!(
        "ALTER TABLE entries DISABLE TRIGGER USER; GRANT UPDATE ON entries TO audit; UPDATE entries SET actor = 'bob' WHERE seq = {victim};"
    );
    database_of(mesh, "audit").get().await.unwrap().batch_execute(&sql).await.unwrap();
    let verification = dave.get("/audit/verify").await.expect(200);
    assert_eq!(verification.body["verified"], false);
    assert_eq!(verification.body["faults"], json!([{ "fault": "changed", "seq": victim }]));
}

/// A connection to a service's database as the service has it: with its certificate and its password.
fn database_of(mesh: &Mesh, service: &str) -> Database {
    tls::install_provider();
    let plan: Value = serde_json::from_str(&mesh.expect(&["plan", "--json"])).unwrap();
    let domain = plan["domain"].as_str().unwrap();
    let address = mesh.unit(&format!("{service}-db")).address;
    let settings = Settings::from_vars([
        ("BERTH_SERVICE", service),
        ("BERTH_INSTANCE", "intruder"),
        ("BERTH_DOMAIN", domain),
        ("BERTH_LISTEN", "127.0.0.1:0"),
        ("BERTH_DATABASE_URL", &format!("postgresql://{service}@{address}/{service}")),
        ("BERTH_DATABASE_SERVER", &format!("{service}-db")),
    ]);
    let credentials = Credentials::at(mesh.folder().join(".berth/credentials").join(service));
    let identity = Identity::load(&credentials, domain).unwrap();
    Database::connect(&settings.unwrap(), &credentials, Some(identity), PoolLimits::default()).unwrap()
}
