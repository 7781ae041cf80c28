//! The identity service: everything it is made of, on one page.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use berth_http::health::Health;
use berth_http::server::{self, Server};
use database::{Database, PoolLimits};
use identity::api::{self, App};
use identity::bootstrap::Bootstrap;
use identity::passwords::Passwords;
use identity::secrets::MasterKeys;
use identity::{logins, store};
use runtime::clock::Clock;
use runtime::credentials::Credentials;
use runtime::lifecycle::Lifecycle;
use runtime::retry::Backoff;
use runtime::settings::Settings;
use runtime::telemetry::{self, Metrics};
use tls::Identity;
use tokio_util::sync::CancellationToken;

/// How long requests under way may take once a drain has begun.
const GRACE: Duration = Duration::from_secs(20);
/// How often what has expired is thrown away.
const PURGE_PERIOD: Duration = Duration::from_secs(5 * 60);

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match (arguments.next().as_deref(), arguments.next()) {
        (None, None) => serve().await,
        (Some("healthcheck"), None) => healthcheck().await,
        _ => {
            eprintln!("usage: identity [healthcheck]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("identity: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> anyhow::Result<()> {
    tls::install_provider();
    let settings = Settings::from_env()?;
    telemetry::init(&settings);
    let lifecycle = Lifecycle::start()?;
    let (clock, metrics, health) = (Clock::system(), Metrics::new(), Health::new());

    let credentials = Credentials::from_env()?;
    let identity = Identity::load(&credentials, &settings.domain)?;
    let database = Database::connect(&settings, &credentials, Some(identity.clone()), PoolLimits::default())?;
    let passwords = Arc::new(Passwords::new()?);
    let master = MasterKeys::load(&credentials)
        .context("only the service that `[auth] issuer` of mesh.toml names has a key for its keys")?;
    let app = App::new(&settings, database.clone(), master, passwords.clone(), &clock, &metrics)?;
    let keyring = app.keyring().clone();

    database.watched_by(&health);
    let prepared = health.awaits("preparation", "not finished yet: waiting for the database");
    let server = Server::new(&settings, identity.clone(), api::router(app), metrics, health).bind()?;

    // The database may come later: until then the listener answers, and says what it waits for.
    let stop = lifecycle.draining();
    let preparation = async {
        let (schema, table) = store::schema();
        let preparing = async {
            database.migrate(schema, table, &stop).await?;
            bring_to_declared_state(&credentials, &database, &passwords, &clock, &stop).await?;
            anyhow::Ok(keyring.turn(&database).await?)
        };
        lifecycle.prepare(preparing).await?;
        prepared.happened();
        lifecycle.ready();
        tokio::join!(
            keyring.run(&database, stop.clone()),
            purge(&database, &clock, stop.clone()),
            reload(&lifecycle, &identity, async || {
                bring_to_declared_state(&credentials, &database, &passwords, &clock, &stop).await
            }),
        );
        anyhow::Ok(())
    };
    let serving = async {
        server.serve(&lifecycle).await;
        lifecycle.drained(GRACE).await;
    };
    tokio::pin!(serving);
    tokio::select! {
        prepared = preparation => match prepared {
            Err(error) if !lifecycle.is_draining() => return Err(error),
            _ => serving.await,
        },
        () = &mut serving => {}
    }
    Ok(())
}

/// Users and clients as `bootstrap.json` has them, as soon as the database can be reached.
async fn bring_to_declared_state(
    credentials: &Credentials,
    database: &Database,
    passwords: &Passwords,
    clock: &Clock,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let bootstrap = Bootstrap::load(credentials)?;
    let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match bootstrap.apply(database, passwords, clock).await {
            Err(error) if error.is_transient() && !stop.is_cancelled() => {
                tracing::warn!(%error, "waiting for the database to bring users and clients to their declared state");
                tokio::time::sleep(pauses.delay()).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// On SIGHUP: new certificates and the declared users and clients. What is broken leaves the old state in place.
async fn reload(lifecycle: &Lifecycle, identity: &Identity, declared: impl AsyncFn() -> anyhow::Result<()>) {
    let (mut reloads, stop) = (lifecycle.reloads(), lifecycle.draining());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = reloads.changed() => if changed.is_err() { return },
        }
        lifecycle.reloading();
        let certificates = identity.reload().context("certificates");
        for error in [certificates, declared().await.context("users and clients")].into_iter().filter_map(Result::err) {
            tracing::error!(error = format!("{error:#}"), "not reloaded; the old state stays");
        }
        lifecycle.ready();
    }
}

/// Throws away what has expired, now and then.
async fn purge(database: &Database, clock: &Clock, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(PURGE_PERIOD)).await.is_some() {
        let now = clock.now();
        let quiet = now.saturating_sub(logins::KEPT).unwrap_or(now);
        let purged = async {
            let db = database.get().await?;
            store::purge_sessions(&*db, now).await?;
            store::purge_grants(&*db, now).await?;
            store::purge_attempts(&*db, quiet).await
        };
        if let Err(error) = purged.await {
            tracing::warn!(%error, "what has expired cannot be thrown away at the moment");
        }
    }
}

async fn healthcheck() -> anyhow::Result<()> {
    tls::install_provider();
    let settings = Settings::from_env()?;
    let identity = Identity::load(&Credentials::from_env()?, &settings.domain)?;
    Ok(server::probe(&settings, &identity).await?)
}
