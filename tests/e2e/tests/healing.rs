//! Everything is killed, one process after the other; the mesh heals by itself and loses nothing.
#![allow(clippy::unwrap_used, reason = "in a test")]

use std::{sync::Arc, time::Duration};

use e2e::{Answer, Caller, Mesh, Shop};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    sync::Barrier,
    time::{Instant, sleep_until},
};

#[tokio::test]
async fn every_process_that_is_killed_comes_back_and_orders_go_on() {
    let mesh = Mesh::up().await;
    let shop = Shop::open(&mesh);
    let item = shop.item(1_000).await;
    let mut left = 1_000;
    for unit in mesh.units().into_iter().filter(|unit| unit.pid.is_some()) {
        let old = mesh.signal(&unit.name, Signal::SIGKILL);
        mesh.healed(&unit.name, old).await;
        shop.order_surely(&item, 1).await;
        left -= 1;
        shop.stock_becomes(&item, (left, 0)).await;
    }
}

#[tokio::test]
async fn killing_one_of_two_instances_under_load_loses_only_what_was_in_flight_on_it() {
    const CLIENTS: usize = 8;
    const STOCK: i64 = 100_000;
    let mesh = Mesh::up().await;
    let shop = Shop::open(&mesh);
    let item = shop.item(STOCK).await;
    let mut shelves = Vec::new();
    for _ in 0..CLIENTS / 2 {
        shelves.push(shop.item(0).await);
    }
    let start = Arc::new(Barrier::new(CLIENTS + shelves.len() + 1));
    let end = Instant::now() + Duration::from_secs(8);
    let clients = (0..CLIENTS).map(|_| tokio::spawn(read(shop.alice.clone(), item.clone(), Arc::clone(&start), end)));
    let clients: Vec<_> = clients.collect();
    let writers = shelves.iter().map(|shelf| tokio::spawn(write(shop.clone(), shelf.clone(), Arc::clone(&start), end)));
    let writers: Vec<_> = writers.collect();
    let buying = async {
        let mut ordered = 0;
        while Instant::now() < end {
            shop.order_surely(&item, 1).await;
            ordered += 1;
        }
        ordered
    };
    let killing = async {
        sleep_until(end - Duration::from_secs(6)).await;
        mesh.signal("item-management-1", Signal::SIGKILL)
    };
    start.wait().await;
    let (ordered, old) = tokio::join!(buying, killing);
    for client in clients {
        let answers = client.await.unwrap();
        let failed: Vec<_> = answers.iter().filter(|answer| !matches!(answer, Ok(StatusCode::OK))).collect();
        // A read may be sent again, so not even those in flight are lost.
        assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), answers.len());
    }
    mesh.healed("item-management-1", old).await;
    for (writer, shelf) in writers.into_iter().zip(&shelves) {
        let answers = writer.await.unwrap();
        let failed: Vec<_> =
            answers.iter().enumerate().filter(|(_, answer)| !matches!(answer, Ok(StatusCode::CREATED))).collect();
        // A writer waits for each answer, so one of its requests at most was in flight when the instance was killed.
        assert!(failed.len() <= 1, "{} of {} failed: {failed:?}", failed.len(), answers.len());
        for (number, answer) in failed {
            assert!(matches!(answer, Ok(StatusCode::BAD_GATEWAY) | Err(_)), "{answer:?}");
            // It may have been done or not; under its key it can be asked for again, and is done once.
            assert_eq!(add_one(&shop, shelf, number).await.unwrap(), StatusCode::CREATED);
        }
        assert_eq!(shop.stock(shelf).await, (i64::try_from(answers.len()).unwrap(), 0));
    }
    // Orders may have to be repeated, under their key; each is done exactly once.
    shop.stock_becomes(&item, (STOCK - ordered, 0)).await;
}

/// Looks at the item again and again, and says how each request ended.
async fn read(caller: Caller, item: String, start: Arc<Barrier>, end: Instant) -> Vec<reqwest::Result<StatusCode>> {
    let path = format!("/items/{item}");
    let mut answers = Vec::new();
    start.wait().await;
    while Instant::now() < end {
        answers.push(Answer::try_of(caller.request(Method::GET, &path)).await.map(|answer| answer.status));
    }
    answers
}

/// Adds to the item's stock piece by piece, repeats nothing, and says how each request ended.
async fn write(shop: Shop, item: String, start: Arc<Barrier>, end: Instant) -> Vec<reqwest::Result<StatusCode>> {
    let mut answers = Vec::new();
    start.wait().await;
    while Instant::now() < end {
        answers.push(add_one(&shop, &item, answers.len()).await);
    }
    answers
}

/// One piece more, under a key that is made of the number.
async fn add_one(shop: &Shop, item: &str, number: usize) -> reqwest::Result<StatusCode> {
    let adjustment = json!({ "change": 1, "reason": "found" });
    let request = shop.carol.request(Method::POST, &format!("/items/{item}/stock-adjustments")).json(&adjustment);
    let answer = Answer::try_of(request.header("idempotency-key", format!("piece-{number}"))).await?;
    Ok(answer.status)
}

#[tokio::test]
async fn a_service_without_its_database_says_so_and_recovers_without_a_restart() {
    let mesh = Mesh::up().await;
    let shop = Shop::open(&mesh);
    let item = shop.item(5).await;
    let before = mesh.processes();
    mesh.signal_all("item-management-db", Signal::SIGSTOP);
    let away = testkit::eventually("503 while the database stands still", async || {
        let answer = shop.carol.get(&format!("/items/{item}")).await;
        (answer.status == StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    mesh.signal_all("item-management-db", Signal::SIGCONT);
    assert!(!away.header("retry-after").is_empty(), "{:?}", away.headers);
    assert_eq!(away.header("content-type"), "application/problem+json");
    testkit::eventually("the item to be readable again", async || {
        (shop.carol.get(&format!("/items/{item}")).await.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(mesh.processes(), before, "something was restarted");
}

#[tokio::test]
async fn orders_wait_for_the_broker_and_are_confirmed_when_it_is_back() {
    let mesh = Mesh::up().await;
    let shop = Shop::open(&mesh);
    let item = shop.item(5).await;
    let before = mesh.processes();
    mesh.signal("nats", Signal::SIGSTOP);
    let order = shop.order(&item, 2, 0).await.expect(202);
    assert_eq!(shop.stock(&item).await, (5, 0));
    mesh.signal("nats", Signal::SIGCONT);
    shop.reaches(order.header("location").trim_start_matches("/documents/"), "CONFIRMED").await;
    shop.stock_becomes(&item, (3, 0)).await;
    assert_eq!(mesh.processes(), before, "something was restarted");
}
