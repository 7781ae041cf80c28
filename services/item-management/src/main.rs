//! The daemon: everything it is made of, on one page.

use std::{env, sync::Arc, time::Duration};

use anyhow::bail;
use auth::internal::Verifier;
use berth_http::{
    health::Health,
    server::{self, Server},
};
use database::{Database, PoolLimits};
use item_management::{
    api::{self, App},
    messages::{self, StockKeeper},
    store,
};
use outbox::{Consumer, Events, Outbox, Relay, RelayOptions};
use runtime::{
    clock::Clock,
    credentials::Credentials,
    lifecycle::Lifecycle,
    settings::Settings,
    telemetry::{self, Metrics},
};
use tls::Identity;

/// How long requests and messages may still run once the service was told to stop.
const GRACE: Duration = Duration::from_secs(25);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tls::install_provider();
    let settings = Settings::from_env()?;
    let credentials = Credentials::from_env()?;
    let identity = Identity::load(&credentials, &settings.domain)?;
    match env::args().nth(1).as_deref() {
        None => serve(settings, credentials, identity).await,
        Some("healthcheck") => Ok(server::probe(&settings, &identity).await?),
        Some(other) => bail!("unknown argument {other:?}: there is `healthcheck`, or none to serve"),
    }
}

async fn serve(settings: Settings, credentials: Credentials, identity: Arc<Identity>) -> anyhow::Result<()> {
    telemetry::init(&settings);
    let lifecycle = Lifecycle::start()?;
    let (stop, metrics, clock) = (lifecycle.draining(), Metrics::new(), Clock::system());

    let database = Database::connect(&settings, &credentials, Some(Arc::clone(&identity)), PoolLimits::default())?;

    let outbox = Outbox::new(&metrics);
    let verifier = Arc::new(Verifier::load(&credentials, identity.id(), clock.clone())?);
    let app = App {
        database: database.clone(),
        outbox: outbox.clone(),
        authorizer: Arc::new(api::authorizer()?),
        clock: clock.clone(),
    };

    // Without the event server everything but the order transaction goes on, and its events wait in the outbox.
    let health = Health::new();
    let pinged = database.clone();
    health.check("database", move || {
        let database = pinged.clone();
        async move { database.ping().await.map_err(|error| error.to_string()) }
    });
    let schema = health.awaits("schema", "not up to date yet: waiting for the database");

    let events = Events::connect(&settings, &credentials, &identity).await?;
    let emitting = RelayOptions::emitting(messages::EMITTED);
    let relay = Relay::new(database.clone(), events.clone(), outbox.clone(), emitting);
    let commands =
        Consumer::new(database.clone(), events, outbox, messages::STREAM, messages::SUBJECTS, StockKeeper { clock });
    tokio::spawn(reload(lifecycle.clone(), credentials, Arc::clone(&identity), Arc::clone(&verifier)));

    // The database may come later: until then the listener answers, and says what it waits for.
    let server = Server::new(&settings, identity, api::router(app, verifier), metrics, health).bind()?;
    let preparation = async {
        Outbox::migrate(&database, &stop).await?;
        store::migrate(&database, &stop).await?;
        schema.happened();
        let (tasks, until) = (lifecycle.tasks(), stop.clone());
        tasks.spawn(async move { relay.run(until).await });
        tasks.spawn(commands.run(stop));
        lifecycle.ready();
        anyhow::Ok(())
    };
    let serving = async {
        server.serve(&lifecycle).await;
        lifecycle.drained(GRACE).await;
    };
    tokio::pin!(serving);
    tokio::select! {
        prepared = lifecycle.prepare(preparation) => match prepared {
            Err(error) if !lifecycle.is_draining() => return Err(error),
            _ => serving.await,
        },
        () = &mut serving => {}
    }
    Ok(())
}

/// Takes up rotated credentials on SIGHUP. One that is not usable leaves what was there in place.
async fn reload(lifecycle: Lifecycle, credentials: Credentials, identity: Arc<Identity>, verifier: Arc<Verifier>) {
    let mut reloads = lifecycle.reloads();
    while reloads.changed().await.is_ok() {
        lifecycle.reloading();
        let results = [
            identity.reload().map_err(anyhow::Error::from),
            verifier.reload(&credentials).map_err(anyhow::Error::from),
        ];
        for error in results.into_iter().filter_map(Result::err) {
            tracing::error!(%error, "a credential was not reloaded; the old one stays");
        }
        lifecycle.ready();
    }
}
