//! Wrong passwords make the next attempt wait, for whoever makes them and for nobody else.

use axum::body::Body;
use http::{Request, StatusCode};

use crate::world::{Browser, PASSWORD, REDIRECT, World, request};

async fn attempt(world: &World, address: &str, username: &str, password: &str) -> crate::world::Answer {
    Browser::new(world, address).sign_in(&request("cli", REDIRECT, "openid", ""), username, password).await
}

#[tokio::test]
async fn each_wrong_password_beyond_the_free_ones_costs_a_longer_wait() {
    let world = World::start().await;
    for _ in 0..5 {
        let page = attempt(&world, "192.0.2.1", "alice", "wrong").await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
        assert!(page.body.contains("role=\"alert\"") && page.input("username") == "alice");
        assert!(!page.body.contains("wrong\""), "the password does not come back");
    }
    for wait in ["1", "2", "4"] {
        let page = attempt(&world, "192.0.2.1", "alice", PASSWORD).await;
        assert_eq!((page.status, page.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, wait));
        // From elsewhere she can sign in, also when her name is written otherwise.
        attempt(&world, "192.0.2.2", "Alice", PASSWORD).await.redirected("code");
        // Another case of the name is the same account.
        let page = attempt(&world, "192.0.2.1", "ALICE", PASSWORD).await;
        assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
        world.pass(wait.parse().unwrap());
        assert_eq!(attempt(&world, "192.0.2.1", "alice", "wrong").await.status, StatusCode::FORBIDDEN);
    }
    world.pass(8);
    attempt(&world, "192.0.2.1", "alice", PASSWORD).await.redirected("code");
    for _ in 0..5 {
        assert_eq!(
            attempt(&world, "192.0.2.1", "alice", "wrong").await.status,
            StatusCode::FORBIDDEN,
            "all is forgotten"
        );
    }
}

#[tokio::test]
async fn an_account_that_does_not_exist_looks_like_one_that_does() {
    let world = World::start().await;
    let mut pages = Vec::new();
    for name in ["alice", "nobody"] {
        let mut seen = Vec::new();
        for _ in 0..7 {
            let page = attempt(&world, "192.0.2.1", name, "wrong").await;
            let body = page.body.replace(name, "…").replace(&page.input("proof"), "…");
            seen.push((page.status, page.header("retry-after").to_owned(), body));
        }
        pages.push(seen);
    }
    assert_eq!(pages[0], pages[1]);
}

#[tokio::test]
async fn attempts_at_once_do_not_outrun_the_count() {
    let world = World::start().await;
    let attempts = (0..20).map(|_| attempt(&world, "192.0.2.1", "alice", "wrong"));
    let answers = futures_util::future::join_all(attempts).await;
    let tried = answers.iter().filter(|answer| answer.status == StatusCode::FORBIDDEN).count();
    assert_eq!(tried, 5, "so many as one after the other");
}

#[tokio::test]
async fn one_source_cannot_try_one_password_on_every_account() {
    let world = World::start().await;
    for n in 0..51 {
        let page = attempt(&world, "192.0.2.1", &format!("user-{n}"), "wrong").await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{n}");
    }
    assert_eq!(attempt(&world, "192.0.2.1", "another", "wrong").await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(attempt(&world, "192.0.2.2", "another", "wrong").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn only_the_last_hop_says_where_somebody_comes_from() {
    let world = World::start().await;
    for n in 0..5 {
        let forged = format!("198.51.100.{n}, 192.0.2.1");
        assert_eq!(attempt(&world, &forged, "alice", "wrong").await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(attempt(&world, "203.0.113.9, 192.0.2.1", "alice", "wrong").await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_name_or_password_of_any_length_is_merely_wrong() {
    let world = World::start().await;
    let long = "x".repeat(2000);
    for (name, password) in
        [("", ""), ("alice", ""), ("", PASSWORD), (long.as_str(), PASSWORD), ("alice", long.as_str()), ("🦀", "🦀")]
    {
        assert_eq!(attempt(&world, "192.0.2.9", name, password).await.status, StatusCode::FORBIDDEN);
    }
    let metrics = Request::get("/identity/style.css").body(Body::empty()).unwrap();
    assert_eq!(world.send(metrics).await.header("content-type"), "text/css; charset=utf-8");
}
