//! Against a real PostgreSQL: transactions, errors, migrations, and a server that goes away and comes back.
#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use database::{Database, Error, MigrateError, ScopedFutureExt as _, Statements as _};
use refinery::{Migration, Runner};
use testkit::{Postgres, eventually};
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

struct World {
    postgres: Postgres,
    database: Database,
}

async fn world() -> World {
    let postgres = Postgres::start().await;
    let at = postgres.database("database").await;
    World { database: Database::at(&at.url, &at.password).unwrap(), postgres }
}

async fn accounts(database: &Database) {
    let sql = "CREATE TABLE accounts (name text CONSTRAINT accounts_name PRIMARY KEY, money int CONSTRAINT solvent CHECK (money >= 0));
               INSERT INTO accounts VALUES ('a', 10), ('b', 10)";
    database.get().await.unwrap().batch_execute(sql).await.unwrap();
}

async fn money(database: &Database, name: &str) -> i32 {
    database.get().await.unwrap().one("SELECT money FROM accounts WHERE name = $1", &[&name]).await.unwrap().get(0)
}

const TAKE: &str = "UPDATE accounts SET money = money - 1 WHERE name = $1";

#[tokio::test]
async fn a_transaction_commits_all_or_nothing() {
    let World { database, postgres: _postgres } = world().await;
    accounts(&database).await;
    let kept: u64 = database.transaction(|tx| async { tx.run(TAKE, &[&"a"]).await }.scope_boxed()).await.unwrap();
    assert_eq!((kept, money(&database, "a").await), (1, 9));

    let refused = database
        .transaction(|tx| {
            async {
                tx.run(TAKE, &[&"a"]).await?;
                tx.run("UPDATE accounts SET money = -1 WHERE name = 'b'", &[]).await
            }
            .scope_boxed()
        })
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.constraint(), Some("solvent"));
    assert!(refused.to_string().contains("violates check constraint"), "{refused}");
    assert_eq!(money(&database, "a").await, 9);
}

#[tokio::test]
async fn a_future_of_a_transaction_can_be_spawned() {
    let World { database, postgres: _postgres } = world().await;
    accounts(&database).await;
    let name = String::from("a");
    let task = tokio::spawn(async move {
        let name = &name;
        database.transaction(|tx| async move { tx.run(TAKE, &[name]).await }.scope_boxed()).await
    });
    assert_eq!(task.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_deadlock_is_run_again() {
    let World { database, postgres: _postgres } = world().await;
    accounts(&database).await;
    let both_hold_one = Arc::new(Barrier::new(2));
    let attempts = Arc::new(AtomicU32::new(0));
    let cross = |first: &'static str, second: &'static str| {
        let (database, barrier, attempts) = (database.clone(), both_hold_one.clone(), attempts.clone());
        tokio::spawn(async move {
            let (barrier, attempts, tried) = (&barrier, &attempts, &AtomicU32::new(0));
            database
                .transaction(|tx| {
                    async move {
                        attempts.fetch_add(1, Ordering::Relaxed);
                        tx.run(TAKE, &[&first]).await?;
                        if tried.fetch_add(1, Ordering::Relaxed) == 0 {
                            barrier.wait().await;
                        }
                        tx.run(TAKE, &[&second]).await
                    }
                    .scope_boxed()
                })
                .await
        })
    };
    let (one, other) = (cross("a", "b"), cross("b", "a"));
    one.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
    assert!(attempts.load(Ordering::Relaxed) > 2, "there was no deadlock to recover from");
    assert_eq!((money(&database, "a").await, money(&database, "b").await), (8, 8));
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_and_then_back() {
    let World { database, mut postgres } = world().await;
    accounts(&database).await;
    database.ping().await.unwrap();
    postgres.kill();
    // A session outlives its killed server for a moment.
    let error = eventually("the session to end", async || database.ping().await.err()).await;
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let refused = database.transaction(|tx| async { tx.run(TAKE, &[&"a"]).await }.scope_boxed()).await;
    assert!(refused.unwrap_err().is_transient());
    postgres.restart().await;
    eventually("the pool to recover", async || database.ping().await.ok()).await;
    assert_eq!(money(&database, "a").await, 10);
}

#[tokio::test]
async fn a_broken_session_inside_a_transaction_is_unavailable() {
    let World { database, postgres: _postgres } = world().await;
    let cut = database
        .transaction(|tx| async { tx.run("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await }.scope_boxed())
        .await;
    assert!(matches!(cut, Err(Error::Unavailable(_))), "{cut:?}");
}

fn runner(steps: &[(&str, &str)]) -> Runner {
    let migrations: Vec<_> = steps.iter().map(|(name, sql)| Migration::unapplied(name, sql).unwrap()).collect();
    Runner::new(&migrations)
}

const FIRST: (&str, &str) = ("V1__first", "CREATE TABLE t (n int); SELECT pg_sleep(0.1)");
const SECOND: (&str, &str) = ("V2__second", "INSERT INTO t VALUES (1)");

#[tokio::test]
async fn instances_that_migrate_together_apply_each_step_once() {
    let World { database, postgres: _postgres } = world().await;
    let never = CancellationToken::new();
    let instances: Vec<_> = (0..4)
        .map(|_| {
            let (database, never) = (database.clone(), never.clone());
            tokio::spawn(async move { database.migrate(runner(&[FIRST, SECOND]), "migrations", &never).await })
        })
        .collect();
    for instance in instances {
        instance.await.unwrap().unwrap();
    }
    let rows = database.get().await.unwrap().all("SELECT n FROM t", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn a_wrong_migration_is_an_error_at_once() {
    let World { database, postgres: _postgres } = world().await;
    let never = CancellationToken::new();
    let wrong = database.migrate(runner(&[("V1__wrong", "CREATE TABEL t ()")]), "migrations", &never).await;
    assert!(matches!(wrong, Err(MigrateError::Migration(_))), "{wrong:?}");
}

#[tokio::test]
async fn migrating_waits_for_the_database_until_it_comes_or_the_process_stops() {
    let World { database, mut postgres } = world().await;
    postgres.kill();
    let stop = CancellationToken::new();
    let migrate = |stop: CancellationToken| {
        let database = database.clone();
        tokio::spawn(async move { database.migrate(runner(&[FIRST]), "migrations", &stop).await })
    };
    let stopped = migrate(stop.clone());
    stop.cancel();
    assert!(matches!(stopped.await.unwrap(), Err(MigrateError::Stopped(_))));

    let waiting = migrate(CancellationToken::new());
    postgres.restart().await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dedicated_connection_hears_notifications() {
    let World { database, postgres: _postgres } = world().await;
    let listening = database.dedicated().await.unwrap();
    listening.batch_execute("LISTEN something").await.unwrap();
    database.get().await.unwrap().batch_execute("NOTIFY something; NOTIFY something").await.unwrap();
    eventually("the notification", async || {
        listening.notified().await;
        Some(())
    })
    .await;
}
