//! Each statement, against a real PostgreSQL.

use std::collections::BTreeSet;
use std::time::Duration;

use database::{Database, Error};
use identity::domain::attempts::Attempts;
use identity::domain::client::{Client, GrantType};
use identity::domain::pkce::Challenge;
use identity::domain::{Grant, Session, User, after};
use identity::secrets::hash;
use identity::store::{self, Code, StoredKey};
use jiff::Timestamp;
use uuid::Uuid;

use crate::world::empty_database;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn later(seconds: u64) -> Timestamp {
    after(now(), Duration::from_secs(seconds))
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn user(name: &str) -> User {
    User { id: Uuid::now_v7(), name: name.to_owned(), password_hash: "hash".to_owned(), roles: set(&["a", "b"]) }
}

fn client(id: &str) -> Client {
    Client {
        id: id.to_owned(),
        secret_hash: Some("hash".to_owned()),
        redirect_uris: vec!["https://b.test".to_owned(), "https://a.test".to_owned()],
        grants: [GrantType::ClientCredentials, GrantType::RefreshToken].into(),
        scopes: set(&["shop"]),
        roles: set(&[]),
    }
}

/// Runs statements of a transaction and commits.
macro_rules! commit {
    ($database:expr, $tx:ident => $work:expr) => {{
        let mut db = $database.get().await.unwrap();
        let $tx = db.transaction().await.unwrap();
        let value = $work;
        $tx.commit().await.unwrap();
        value
    }};
}

async fn with_grant(database: &Database) -> (User, Grant) {
    let (user, client) = (user("alice"), client("cli"));
    let grant = Grant {
        id: Uuid::now_v7(),
        client_id: client.id.clone(),
        user_id: user.id,
        scopes: set(&["openid", "shop"]),
        authenticated_at: now(),
        expires_at: later(100),
        revoked_at: None,
    };
    commit!(database, tx => {
        store::put_user(&tx, &user, now()).await.unwrap();
        store::put_client(&tx, &client, now()).await.unwrap();
        store::insert_grant(&tx, &grant).await.unwrap();
    });
    (user, grant)
}

#[tokio::test]
async fn users_and_clients() {
    let (_postgres, _, database) = empty_database().await;
    let db = database.get().await.unwrap();
    let (mut alice, bob) = (user("alice"), user("Bob"));
    commit!(database, tx => {
        store::put_user(&tx, &alice, now()).await.unwrap();
        store::put_user(&tx, &bob, now()).await.unwrap();
    });
    assert_eq!(store::find_user(&*db, alice.id).await.unwrap(), Some(alice.clone()));
    assert_eq!(store::find_user(&*db, Uuid::nil()).await.unwrap(), None);
    assert_eq!(store::find_user_by_name(&*db, "bOB").await.unwrap(), Some(bob));
    assert_eq!(store::find_user_by_name(&*db, "%").await.unwrap(), None);
    alice.roles = set(&["c"]);
    commit!(database, tx => store::put_user(&tx, &alice, later(1)).await.unwrap());
    assert_eq!(store::find_user(&*db, alice.id).await.unwrap(), Some(alice));
    let taken = commit!(database, tx => store::put_user(&tx, &user("ALICE"), now()).await.unwrap_err());
    assert_eq!(taken.constraint(), Some(store::UNIQUE_NAME));

    let mut web = client("web");
    commit!(database, tx => store::put_client(&tx, &web, now()).await.unwrap());
    assert_eq!(store::find_client(&*db, "web").await.unwrap(), Some(web.clone()));
    assert_eq!(store::find_client(&*db, "WEB").await.unwrap(), None);
    (web.secret_hash, web.grants) = (None, BTreeSet::new());
    commit!(database, tx => store::put_client(&tx, &web, now()).await.unwrap());
    assert_eq!(store::find_client(&*db, "web").await.unwrap(), Some(web));
}

#[tokio::test]
async fn sessions() {
    let (_postgres, _, database) = empty_database().await;
    let (alice, _) = with_grant(&database).await;
    let db = database.get().await.unwrap();
    let session = Session { user_id: alice.id, authenticated_at: now(), expires_at: later(10) };
    for token in ["one", "two", "three"] {
        store::insert_session(&*db, &hash(token), &session).await.unwrap();
    }
    assert_eq!(store::find_session(&*db, &hash("one")).await.unwrap(), Some((session, alice.clone())));
    assert_eq!(store::find_session(&*db, &hash("other")).await.unwrap(), None);
    store::delete_session(&*db, &hash("one")).await.unwrap();
    assert_eq!(store::find_session(&*db, &hash("one")).await.unwrap(), None);
    assert_eq!(store::purge_sessions(&*db, later(9)).await.unwrap(), 0);
    commit!(database, tx => store::delete_sessions_of(&tx, alice.id).await.unwrap());
    assert_eq!(store::find_session(&*db, &hash("two")).await.unwrap(), None);
    let session = Session { user_id: alice.id, authenticated_at: now(), expires_at: later(10) };
    store::insert_session(&*db, &hash("four"), &session).await.unwrap();
    assert_eq!(store::purge_sessions(&*db, later(10)).await.unwrap(), 1);
    let nobody = Session { user_id: Uuid::nil(), ..session };
    assert!(matches!(store::insert_session(&*db, &hash("five"), &nobody).await, Err(Error::Conflict { .. })));
}

#[tokio::test]
async fn grants_codes_and_refresh_tokens() {
    let (_postgres, _, database) = empty_database().await;
    let (alice, grant) = with_grant(&database).await;
    let db = database.get().await.unwrap();
    assert_eq!(store::find_grant(&*db, grant.id).await.unwrap(), Some(grant.clone()));
    let code = Code {
        redirect_uri: "https://a.test".to_owned(),
        challenge: Challenge::from_bytes(&[7; 32]).unwrap(),
        nonce: Some("n".to_owned()),
        expires_at: later(60),
        used_at: None,
    };
    let (locked_code, locked_token) = commit!(database, tx => {
        store::insert_code(&tx, &hash("code"), grant.id, &code).await.unwrap();
        store::insert_refresh_token(&tx, &hash("token"), grant.id, later(90)).await.unwrap();
        assert_eq!(store::lock_code(&tx, &hash("other")).await.unwrap(), None);
        assert_eq!(store::lock_refresh_token(&tx, &hash("other")).await.unwrap(), None);
        let locked = (
            store::lock_code(&tx, &hash("code")).await.unwrap().unwrap(),
            store::lock_refresh_token(&tx, &hash("token")).await.unwrap().unwrap(),
        );
        store::use_code(&tx, &hash("code"), later(1)).await.unwrap();
        store::use_refresh_token(&tx, &hash("token"), later(2)).await.unwrap();
        locked
    });
    assert_eq!(locked_code, (code, grant.clone()));
    assert_eq!((locked_token.0.expires_at, locked_token.0.used_at, locked_token.1), (later(90), None, grant.clone()));
    commit!(database, tx => {
        assert_eq!(store::lock_code(&tx, &hash("code")).await.unwrap().unwrap().0.used_at, Some(later(1)));
        assert_eq!(store::lock_refresh_token(&tx, &hash("token")).await.unwrap().unwrap().0.used_at, Some(later(2)));
    });

    store::revoke_grant(&*db, grant.id, later(3)).await.unwrap();
    store::revoke_grant(&*db, grant.id, later(4)).await.unwrap();
    let revoked = store::find_grant(&*db, grant.id).await.unwrap().unwrap();
    assert_eq!(revoked.revoked_at, Some(later(3)), "the first time counts");
    assert!(grant.is_alive(later(99)) && !grant.is_alive(later(100)) && !revoked.is_alive(later(3)));

    let another = Grant { id: Uuid::now_v7(), ..grant.clone() };
    commit!(database, tx => {
        store::insert_grant(&tx, &another).await.unwrap();
        store::revoke_grants_of(&tx, alice.id, later(5)).await.unwrap();
    });
    assert_eq!(store::find_grant(&*db, another.id).await.unwrap().unwrap().revoked_at, Some(later(5)));
    assert_eq!(store::find_grant(&*db, grant.id).await.unwrap().unwrap().revoked_at, Some(later(3)));

    assert_eq!(store::purge_grants(&*db, later(99)).await.unwrap(), 0);
    assert_eq!(store::purge_grants(&*db, later(100)).await.unwrap(), 2);
    commit!(database, tx => {
        assert_eq!(store::lock_code(&tx, &hash("code")).await.unwrap(), None);
        assert_eq!(store::lock_refresh_token(&tx, &hash("token")).await.unwrap(), None);
    });
}

#[tokio::test]
async fn attempts() {
    let (_postgres, _, database) = empty_database().await;
    let account = b"account".as_slice();
    let lock = async || commit!(database, tx => store::lock_attempts(&tx, account, "s").await.unwrap());
    assert_eq!(lock().await, None);
    let counted = Attempts { failures: 7, blocked_until: later(8), last_at: later(2) };
    commit!(database, tx => {
        store::touch_attempts(&tx, account, "s", now()).await.unwrap();
        assert_eq!(store::lock_attempts(&tx, account, "s").await.unwrap(), Some(Attempts { failures: 0, blocked_until: now(), last_at: now() }));
        store::put_attempts(&tx, account, "s", &counted).await.unwrap();
        store::touch_attempts(&tx, account, "s", later(9)).await.unwrap();
    });
    assert_eq!(lock().await, Some(counted), "touching changes nothing that is there");
    commit!(database, tx => store::strike_attempt(&tx, account, "s", later(3)).await.unwrap());
    assert_eq!(lock().await, Some(Attempts { failures: 6, blocked_until: later(3), last_at: later(2) }));
    let db = database.get().await.unwrap();
    assert_eq!(store::purge_attempts(&*db, later(2)).await.unwrap(), 0, "still blocked");
    assert_eq!(store::purge_attempts(&*db, later(3)).await.unwrap(), 1);
    commit!(database, tx => {
        store::touch_attempts(&tx, account, "s", now()).await.unwrap();
        store::strike_attempt(&tx, account, "s", now()).await.unwrap();
        assert_eq!(store::lock_attempts(&tx, account, "s").await.unwrap().unwrap().failures, 0, "never below none");
        store::forget_attempts(&tx, account, "s").await.unwrap();
    });
    assert_eq!(lock().await, None);
}

#[tokio::test]
async fn signing_keys() {
    let (_postgres, _, database) = empty_database().await;
    let key = |kid: &str, from| StoredKey {
        kid: kid.to_owned(),
        sealed: vec![1, 2, 3],
        published_at: now(),
        signs_from: from,
    };
    let (old, new) = (key("old", now()), key("new", later(9)));
    commit!(database, tx => {
        store::lock_keys(&tx).await.unwrap();
        store::insert_signing_key(&tx, &new).await.unwrap();
        store::insert_signing_key(&tx, &old).await.unwrap();
    });
    let db = database.get().await.unwrap();
    assert_eq!(store::signing_keys(&*db).await.unwrap(), [old, new.clone()], "the oldest first");
    commit!(database, tx => store::delete_signing_key(&tx, "old").await.unwrap());
    assert_eq!(store::signing_keys(&*db).await.unwrap(), [new]);
}

#[tokio::test]
async fn the_schema_can_be_brought_about_by_several_at_once_and_again() {
    let (_postgres, at, _) = empty_database().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let database = Database::at(&at.url, &at.password).unwrap();
    let migrate = || {
        let (schema, table) = store::schema();
        database.migrate(schema, table, &stop)
    };
    let (one, two) = tokio::join!(migrate(), migrate());
    one.unwrap();
    two.unwrap();
}
