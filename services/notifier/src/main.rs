//! The daemon: everything it is made of, on one page.

use std::{env, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use auth::{internal::Verifier, refusals::Refusals, seal::Sealer};
use berth_http::{
    health::Health,
    server::{self, Server},
};
use database::{Database, PoolLimits};
use notifier::{
    api::{self, App},
    deliveries::Deliverer,
    domain::Patience,
    messages::{self, Fanout},
    reach::{self, Reach},
    sender::Sender,
    store,
};
use outbox::{Consumer, Events, Outbox, Relay, RelayOptions, operator};
use runtime::{
    clock::Clock,
    credentials::Credentials,
    lifecycle::Lifecycle,
    settings::Settings,
    telemetry::{self, Metrics},
};
use tls::Identity;

/// How long requests, messages and deliveries may still run once the service was told to stop.
const GRACE: Duration = Duration::from_secs(25);
/// How long one delivery may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The credential that subscribers' secrets are encrypted with.
const KEY: &str = "webhook-key";

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
    let sealer = Arc::new(Sealer::load(&credentials, KEY)?);
    let (reach, refusals) = (reach()?, Refusals::new(clock));
    let authorizer = Arc::new(api::authorizer()?.reporting(&refusals));
    let app = App {
        database: database.clone(),
        outbox: outbox.clone(),
        authorizer: Arc::clone(&authorizer),
        sealer: Arc::clone(&sealer),
        reach: reach.clone(),
        own: identity.id().clone(),
    };

    let health = Health::new();
    database.watched_by(&health);
    let schema = health.awaits("schema", "not up to date yet: waiting for the database");

    let events = Events::connect(&settings, &credentials, &identity).await?;
    let relay = Relay::new(database.clone(), events.clone(), outbox.clone(), RelayOptions::emitting(messages::EMITTED));
    let consumers: Vec<_> = settings
        .consumes
        .iter()
        .map(|(stream, subjects)| {
            let fanout = Fanout { authorizer: Arc::clone(&authorizer) };
            Consumer::new(database.clone(), events.clone(), outbox.clone(), stream, subjects.clone(), fanout)
        })
        .collect();
    let deliverer = Deliverer {
        database: database.clone(),
        outbox: outbox.clone(),
        sealer,
        sender: Sender::new(reach, PATIENCE),
        patience: Patience::default(),
        poll: Duration::from_millis(250),
        lease: PATIENCE * 2,
    };
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
        tasks.spawn(deliverer.clone().purge(stop.clone()));
        tasks.spawn(deliverer.run(stop.clone()));
        let recorder = outbox::refusals::recorder(outbox, database.clone(), messages::DOMAIN);
        tasks.spawn(refusals.run(stop.clone(), recorder));
        lifecycle.ready();
        anyhow::Ok(())
    };
    server.serve_prepared(&lifecycle, GRACE, preparation).await
}

/// Where messages may go: what [`reach::VARIABLE`] says, else public addresses alone.
fn reach() -> anyhow::Result<Reach> {
    match env::var(reach::VARIABLE) {
        Err(env::VarError::NotPresent) => Ok(Reach::default()),
        value => value
            .map_err(|error| anyhow!(error))
            .and_then(|text| text.parse().map_err(|error: String| anyhow!(error)))
            .context(reach::VARIABLE),
    }
}
