//! The authorization endpoint: who is asked, who is not, and where errors go.

use axum::body::Body;
use http::{Request, StatusCode};

use crate::world::{Browser, ISSUER, PASSWORD, REDIRECT, World, post, request};

const SESSION: &str = "__Secure-identity-session";

#[tokio::test]
async fn what_is_wrong_with_a_request_goes_back_to_the_client() {
    let world = World::start().await;
    let good = request("cli", REDIRECT, "openid shop", "");
    for (query, error) in [
        (good.replace("response_type=code", "response_type=token"), "unsupported_response_type"),
        (good.replace("response_type=code&", ""), "invalid_request"),
        (good.replace("S256", "plain"), "invalid_request"),
        (good.replace("code_challenge=E9", "code_challenge=E"), "invalid_request"),
        (good.replace("&code_challenge=", "&x="), "invalid_request"),
        (good.replace("scope=openid+shop", "scope=openid+admin"), "invalid_scope"),
        (format!("{good}&response_mode=fragment"), "invalid_request"),
        (format!("{good}&request=x.y.z"), "request_not_supported"),
        (format!("{good}&nonce=again"), "invalid_request"),
        (format!("{good}&prompt=none"), "login_required"),
    ] {
        assert_ne!(query, good, "{error}");
        let sent_back = world.get(&format!("/identity/authorize?{query}")).await.redirect();
        assert_eq!(sent_back["error"], error, "{query}");
        assert_eq!((sent_back["state"].as_str(), sent_back["iss"].as_str()), ("a state & more", ISSUER), "{query}");
        assert!(!sent_back.contains_key("code"));
    }
}

#[tokio::test]
async fn nobody_is_sent_to_where_no_client_of_ours_is() {
    let world = World::start().await;
    let good = request("cli", REDIRECT, "openid shop", "");
    let redirect = "redirect_uri=http%3A%2F%2F127.0.0.1%3A5555%2Fcallback";
    assert!(good.contains(redirect));
    let long = format!("{good}&x={}", "x".repeat(8192));
    for query in [
        "",
        "client_id=cli",
        &good.replace("client_id=cli", "client_id=nobody"),
        &good.replace("client_id=cli", "client_id=%00"),
        &good.replace("client_id=cli", "client_id=cli&client_id=cli"),
        &good.replace(redirect, ""),
        &good.replace(redirect, "redirect_uri=https%3A%2F%2Fevil.test%2Fcallback"),
        &good.replace(redirect, "redirect_uri=http%3A%2F%2F127.0.0.1%3A5555%2Fcallback%2F..%2Fx"),
        &good.replace(redirect, &format!("{redirect}&{redirect}")),
        &good.replace(redirect, "redirect_uri=javascript%3Aalert(1)"),
        &long,
    ] {
        let path = format!("/identity/authorize?{query}");
        let answer = world.get(&path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("location"), "");
        let page = Browser::new(&world, "192.0.2.1").open(query).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(page.header("content-type").starts_with("text/html") && page.body.contains("role=\"alert\""));
        assert_eq!(page.header("location"), "");
    }
    let by_form = world.send(post("/identity/authorize", &[("client_id", "nobody")])).await;
    assert_eq!(by_form.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn who_has_signed_in_confirms_a_public_client_and_goes_straight_to_one_with_a_secret() {
    let world = World::start().await;
    let public = request("cli", REDIRECT, "openid", "");
    let confidential = request("web", "https://web.test/cb?shop=1", "openid", "");
    let mut browser = Browser::new(&world, "192.0.2.1");
    browser.sign_in(&public, "alice", PASSWORD).await.redirected("code");

    let page = browser.open(&public).await;
    assert!(page.body.contains("Continue as alice?"), "{}", page.body);
    browser.submit(&page, &[("continue", "yes")]).await.redirected("code");
    assert_eq!(browser.submit(&page, &[("cancel", "yes")]).await.redirected("error"), "access_denied");
    let other = browser.submit(&page, &[("switch", "yes")]).await;
    assert!(other.status == StatusCode::OK && other.body.contains("name=\"password\""));
    assert_eq!(browser.open(&format!("{public}&prompt=none")).await.redirected("error"), "interaction_required");

    browser.open(&confidential).await.redirected("code");
    browser.open(&format!("{confidential}&prompt=none")).await.redirected("code");
    assert!(browser.open(&format!("{confidential}&prompt=consent")).await.body.contains("Continue as alice?"));

    // Who must give the password again cannot get around it.
    for more in ["&prompt=login", "&max_age=60"] {
        world.pass(61);
        let query = format!("{public}{more}");
        let page = browser.open(&query).await;
        assert!(page.body.contains("name=\"password\""), "{more}");
        let page = browser.submit(&page, &[("continue", "yes")]).await;
        assert!(page.status == StatusCode::OK && page.body.contains("name=\"password\""), "{more}");
    }
    let before = browser.cookies[SESSION].clone();
    let query = format!("{confidential}&prompt=login&login_hint=alice");
    let page = browser.open(&query).await;
    assert_eq!(page.input("username"), "alice");
    browser.submit(&page, &[("username", "alice"), ("password", PASSWORD)]).await.redirected("code");
    assert_ne!(browser.cookies[SESSION], before, "each sign-in is a session of its own");
    let mut stale = Browser::new(&world, "192.0.2.1");
    stale.cookies.insert(SESSION.to_owned(), before);
    assert!(stale.open(&confidential).await.body.contains("name=\"password\""), "the one before has ended");

    world.pass(8 * 60 * 60);
    assert!(browser.open(&confidential).await.body.contains("name=\"password\""), "sessions end");
}

#[tokio::test]
async fn a_form_is_good_in_the_browser_and_for_the_request_it_was_made_for() {
    let world = World::start().await;
    let query = request("cli", REDIRECT, "openid", "");
    let password = [("username", "alice"), ("password", PASSWORD)];
    let mut victim = Browser::new(&world, "192.0.2.1");
    let mut attacker = Browser::new(&world, "192.0.2.2");
    let (of_victim, of_attacker) = (victim.open(&query).await, attacker.open(&query).await);

    let refused = victim.submit(&of_attacker, &password).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "an attacker's form in a victim's browser");
    assert!(!victim.cookies.contains_key(SESSION));
    let mut without_cookie = Browser::new(&world, "192.0.2.1");
    assert_eq!(without_cookie.submit(&of_victim, &password).await.status, StatusCode::FORBIDDEN);
    let proof = of_victim.input("proof");
    let other = request("cli", REDIRECT, "openid shop", "");
    let fields = [("proof", proof.as_str()), ("request", &other), password[0], password[1]];
    assert_eq!(
        victim.send(post("/identity/login", &fields)).await.status,
        StatusCode::FORBIDDEN,
        "for another request"
    );

    // Nobody has to start again: the page that says so works.
    victim.submit(&refused, &password).await.redirected("code");
    // A second tab did not take the first one's cookie away.
    victim.submit(&of_victim, &password).await.redirected("code");
}

#[tokio::test]
async fn signing_out_ends_the_session_and_only_by_the_users_own_form() {
    let world = World::start().await;
    let query = request("web", "https://web.test/cb?shop=1", "openid", "");
    let mut browser = Browser::new(&world, "192.0.2.1");
    browser.sign_in(&query, "alice", PASSWORD).await.redirected("code");
    let stolen = browser.cookies[SESSION].clone();

    let forged = browser.send(post("/identity/logout", &[("proof", "x")])).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    browser.open(&query).await.redirected("code");

    let page = browser.send(Request::get("/identity/logout").body(Body::empty()).unwrap()).await;
    let proof = page.input("proof");
    let done = browser.send(post("/identity/logout", &[("proof", &proof)])).await;
    assert!(done.status == StatusCode::OK && done.body.contains("Signed out"));
    assert!(!browser.cookies.contains_key(SESSION));
    browser.cookies.insert(SESSION.to_owned(), stolen);
    assert!(browser.open(&query).await.body.contains("name=\"password\""), "the session is gone, not only its cookie");
}

#[tokio::test]
async fn the_same_request_by_form_is_the_same_request() {
    let world = World::start().await;
    let query = request("cli", REDIRECT, "openid", "");
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut browser = Browser::new(&world, "192.0.2.1");
    let page = browser.send(post("/identity/authorize", &fields)).await;
    let answer = browser.submit(&page, &[("username", "alice"), ("password", PASSWORD)]).await;
    assert_eq!(world.exchange(&answer.redirected("code")).await.status, StatusCode::OK);
}
