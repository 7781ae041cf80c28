//! The database goes away and comes back.

use http::StatusCode;
use testkit::eventually;

use crate::world::{Browser, PASSWORD, REDIRECT, World, request};

#[tokio::test]
async fn without_its_database_it_says_try_again_and_afterwards_it_works_without_a_restart() {
    let mut world = World::start().await;
    let query = request("cli", REDIRECT, "openid offline_access", "");
    let tokens = world.tokens_of_alice("openid offline_access").await;
    let (access, refresh) = (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    let page = Browser::new(&world, "192.0.2.1").open(&query).await;

    world.postgres.kill();
    let authorize = world.get(&format!("/identity/authorize?{query}")).await;
    let page_without = Browser::new(&world, "192.0.2.1").open(&query).await;
    let login = Browser::new(&world, "192.0.2.1").submit(&page, &[("username", "alice"), ("password", PASSWORD)]).await;
    for answer in [authorize, page_without, login, world.userinfo(access).await] {
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (StatusCode::SERVICE_UNAVAILABLE, "1"),
            "{}",
            answer.body
        );
    }
    let token = world.refresh(refresh).await;
    assert_eq!(token.oauth_error(), (503, "temporarily_unavailable".to_owned()));
    assert_eq!(token.header("retry-after"), "1");
    for path in ["/identity/.well-known/jwks.json", "/identity/.well-known/openid-configuration"] {
        assert_eq!(world.get(path).await.status, StatusCode::OK, "{path} needs no database");
    }

    world.postgres.restart().await;
    eventually("the service to work again", async || {
        let answer = world.refresh(refresh).await;
        (answer.status == StatusCode::OK).then_some(())
    })
    .await;
}
