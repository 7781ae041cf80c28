//! The daemon: everything it is made of, on one page.

use std::{env, sync::Arc, time::Duration};

use anyhow::bail;
use audit::{
    api::{self, App},
    chain,
    checkpoint::{self, Signer},
    messages::{self, Recorder},
    store,
};
use auth::{internal::Verifier, refusals::Refusals};
use berth_http::{
    health::Health,
    server::{self, Server},
};
use database::{Database, PoolLimits};
use outbox::{Consumer, Events, Outbox, Relay, RelayOptions, operator};
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
    let events = Events::connect(&settings, &credentials, &identity).await?;
    let verifier = Arc::new(Verifier::load(&credentials, identity.id(), clock.clone())?);
    let signer = Arc::new(Signer::load(&credentials, identity.id())?);
    let refusals = Refusals::new(clock);
    let app = App {
        database: database.clone(),
        authorizer: Arc::new(api::authorizer()?.reporting(&refusals)),
        signer: Arc::clone(&signer),
        events: events.clone(),
    };

    let health = Health::new();
    database.watched_by(&health);
    let schema = health.awaits("schema", "not up to date yet: waiting for the database");

    let relay = Relay::new(database.clone(), events.clone(), outbox.clone(), RelayOptions::emitting(messages::EMITTED));
    let consumers: Vec<_> = settings
        .consumes
        .iter()
        .map(|(stream, subjects)| {
            Consumer::new(database.clone(), events.clone(), outbox.clone(), stream, subjects.clone(), Recorder)
        })
        .collect();
    let own = identity.id().clone();
    let routes =
        api::router(app, verifier.clone()).merge(operator::router(database.clone(), events.clone(), outbox.clone()));
    tokio::spawn({
        let (lifecycle, identity, verifier) = (lifecycle.clone(), Arc::clone(&identity), Arc::clone(&verifier));
        let parts = move || {
            vec![identity.reload().map_err(anyhow::Error::from), verifier.reload(&credentials).map_err(Into::into)]
        };
        async move { lifecycle.reload_by(parts).await }
    });

    // The database may come later: until then the listener answers, and says what it waits for.
    let server = Server::new(&settings, identity, routes, metrics, health).bind()?;
    let preparation = async {
        Outbox::migrate(&database, &stop).await?;
        store::migrate(&database, &stop).await?;
        schema.happened();
        let (tasks, until) = (lifecycle.tasks(), stop.clone());
        tasks.spawn(async move { relay.run(until).await });
        for consumer in consumers {
            tasks.spawn(consumer.run(stop.clone()));
        }
        tasks.spawn(chain::run(database.clone(), outbox.clone(), stop.clone()));
        tasks.spawn(checkpoint::run(database.clone(), outbox, signer, stop.clone()));
        tasks.spawn(refusals.run(stop.clone(), move |reports| {
            let (database, own) = (database.clone(), own.clone());
            async move { messages::take_in_reports(&database, own.as_str(), own.name(), &reports).await }
        }));
        lifecycle.ready();
        anyhow::Ok(())
    };
    server.serve_prepared(&lifecycle, GRACE, preparation).await
}
