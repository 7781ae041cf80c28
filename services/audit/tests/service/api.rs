//! Lists, filters, pages, and whatever else comes in.

use audit::{chain, domain::Record, store};
use auth::{
    Principal,
    refusals::{Refusal, Refusals, Report},
    testing::spiffe,
};
use http::Method;
use runtime::clock::Clock;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, dave, record};

fn seqs(page: &Value) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|entry| entry["seq"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn entries_are_listed_by_filter_and_page() {
    let world = World::new().await;
    let order = Uuid::now_v7();
    let of = |kind: &str, actor: Option<&str>| Record {
        kind: kind.into(),
        actor: actor.map(Into::into),
        subject: format!("order/{order}"),
        ..record()
    };
    let client = world.database.get().await.unwrap();
    for record in [
        record(),
        of("documents.order.placed", Some("alice")),
        of("documents.order.confirmed", Some("alice")),
        of("documents.stock.take", None),
        record(),
    ] {
        store::take_in(&*client, &record).await.unwrap();
    }
    chain::drain(&world.database).await.unwrap();
    let list = async |query: &str| seqs(&world.get(&dave(), &format!("/audit{query}")).await.expect(200).body);
    let third = world.get(&dave(), "/audit/3").await.expect(200).body["recorded_at"].as_str().unwrap().to_owned();
    for (query, expected) in [
        ("", &[5, 4, 3, 2, 1][..]),
        ("?actor=alice", &[3, 2]),
        ("?actor=nobody", &[]),
        (&format!("?subject=order/{order}"), &[4, 3, 2]),
        ("?type=documents.order.placed", &[2]),
        ("?type=documents.order.*", &[3, 2]),
        ("?type=documents.%3E", &[4, 3, 2]),
        ("?type=documents.order", &[]),
        ("?type=items.item.created&actor=carol", &[5, 1]),
        (&format!("?from={third}"), &[5, 4, 3, 2, 1]),
        (&format!("?until={third}"), &[]),
        ("?from=2100-01-01T00:00:00Z", &[]),
    ] {
        assert_eq!(list(query).await, expected, "{query}");
    }
    let (mut pages, mut next) = (Vec::new(), String::new());
    loop {
        let page = world.get(&dave(), &format!("/audit?limit=2{next}")).await.expect(200).body;
        pages.push(seqs(&page));
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(pages, [vec![5, 4], vec![3, 2], vec![1]]);
}

#[tokio::test]
async fn bad_input_is_named_and_changes_nothing() {
    let world = World::with_entries(1).await;
    for (path, status, named) in [
        ("/audit?limit=0", 400, "limit"),
        ("/audit?limit=101", 400, "limit"),
        ("/audit?cursor=!!", 400, "cursor"),
        ("/audit?from=yesterday", 400, "from"),
        ("/audit?until=2026-13-01T00:00:00Z", 400, "until"),
        ("/audit?type=", 400, "type"),
        ("/audit?type=*", 400, "type"),
        ("/audit?type=documents.", 400, "type"),
        ("/audit?type=a%25b", 400, "type"),
        ("/audit?colour=red", 400, "colour"),
        ("/audit/first", 400, "seq"),
        ("/audit/99999999999999999999", 400, "seq"),
        ("/audit/0", 404, "no entry"),
        ("/audit/-1", 404, "no entry"),
        ("/audit/2", 404, "no entry"),
        ("/audit/verify?from=0", 400, "from"),
        ("/audit/verify?from=x", 400, "from"),
        ("/audit/verify?from=3&to=2", 400, "to"),
        ("/audit/verify?checkpoint=abc", 400, "checkpoint"),
    ] {
        let answer = world.get(&dave(), path).await.expect(status);
        assert!(answer.body.to_string().contains(named), "{path}: {:#}", answer.body);
    }
    let gateway = Principal::service(&spiffe("gateway"));
    for (body, status, named) in [
        (json!({}), 422, "pointer"),
        (json!([{ "id": "x" }]), 422, "/0/id"),
        (json!([{ "id": Uuid::nil() }]), 422, "/0/count"),
    ] {
        let answer = world.call("gateway", Some(&gateway), Method::POST, "/internal/refusals", Some(&body)).await;
        let answer = answer.expect(status);
        assert!(answer.body.to_string().contains(named), "{body}: {:#}", answer.body);
    }
    assert_eq!((world.count("entries").await, world.count("intake").await), (1, 0));
}

#[tokio::test]
async fn a_report_that_comes_twice_is_recorded_once() {
    let world = World::new().await;
    let refusals = Refusals::new(Clock::system());
    let refusal = |resource: &str| Refusal {
        principal: None,
        roles: Default::default(),
        action: "authenticate".into(),
        resource: resource.into(),
        reason: "absent".into(),
        client: Some("192.0.2.1".parse().unwrap()),
    };
    refusals.note(refusal("GET /items"));
    refusals.note(refusal("GET /items"));
    refusals.note(refusal("GET /documents"));
    let (sender, mut reported) = tokio::sync::mpsc::unbounded_channel::<Vec<Report>>();
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    refusals
        .run(stop, |reports| {
            sender.send(reports.to_vec()).unwrap();
            std::future::ready(Ok::<_, String>(()))
        })
        .await;
    let reports = reported.recv().await.unwrap();
    let gateway = Principal::service(&spiffe("gateway"));
    let body = serde_json::to_value(&reports).unwrap();
    let post = async || {
        world.call("gateway", Some(&gateway), Method::POST, "/internal/refusals", Some(&body)).await.expect(204);
    };
    post().await;
    post().await;
    chain::drain(&world.database).await.unwrap();
    post().await;
    // One that was on its way into the chain when it came again.
    let sql = "INSERT INTO intake (id, type, source, subject, occurred_at, content) \
               SELECT id, type, source, subject, occurred_at, content FROM entries";
    world.intruder.batch_execute(sql).await.unwrap();
    chain::drain(&world.database).await.unwrap();

    let page = world.get(&dave(), "/audit?type=gateway.access.refused").await.expect(200).body;
    let mut told: Vec<(String, u64)> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let content: Value = serde_json::from_str(entry["content"].as_str().unwrap()).unwrap();
            (entry["subject"].as_str().unwrap().to_owned(), content["count"].as_u64().unwrap())
        })
        .collect();
    told.sort();
    assert_eq!(told, [("GET /documents".to_owned(), 1), ("GET /items".to_owned(), 2)]);
    assert_eq!(world.verify("").await["verified"], true);
    assert_eq!(world.count("intake").await, 0);
}
