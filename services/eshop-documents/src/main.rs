//! The daemon: everything it is made of, on one page.

use std::{env, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use auth::{
    internal::{Minter, Verifier},
    refusals::Refusals,
};
use berth_http::{
    client::{self, PeerClient},
    health::Health,
    server::{self, Server},
    upstream::UpstreamMetrics,
};
use database::{Database, PoolLimits};
use eshop_documents::{
    api::{self, App},
    domain::Patience,
    messages,
    outcomes::Outcomes,
    quotes::{self, Quotes},
    store::Store,
    sweeper,
};
use outbox::{Consumer, Events, Outbox, Relay, RelayOptions, operator};
use runtime::{
    clock::Clock,
    credentials::Credentials,
    lifecycle::Lifecycle,
    settings::Settings,
    telemetry::{self, Metrics},
};
use tls::{Identity, SpiffeId};

/// How long requests may still run once the service was told to stop.
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
    let store = Store::new(database.clone(), outbox.clone());

    let minter = Arc::new(Minter::load(&credentials, identity.id(), clock.clone())?);
    let verifier = Arc::new(Verifier::load(&credentials, identity.id(), clock.clone())?);
    let refusals = Refusals::new(clock);
    let peer = SpiffeId::new(&settings.domain, quotes::PEER)?;
    let limits = client::Limits::default();
    let client = PeerClient::new(&settings, &identity, quotes::PEER, limits, &UpstreamMetrics::register(&metrics))?;
    let outcomes = Outcomes::default();
    let app = App {
        store: store.clone(),
        quotes: Quotes::new(client, Arc::clone(&minter), peer),
        outcomes: outcomes.clone(),
        authorizer: Arc::new(api::authorizer()?.reporting(&refusals)),
        patience: patience()?,
    };

    // Without the event server orders are still taken: they wait in the outbox.
    let health = Health::new();
    database.watched_by(&health);
    let schema = health.awaits("schema", "not up to date yet: waiting for the database");

    let events = Events::connect(&settings, &credentials, &identity).await?;
    let emitting = RelayOptions::emitting(messages::EMITTED);
    let relay = Relay::new(database.clone(), events.clone(), outbox.clone(), emitting);
    let routes = api::router(app, verifier.clone())
        .merge(operator::router(database.clone(), events.clone(), outbox.clone()))
        .merge(operator::saga_router(database.clone(), store.clone()));
    let answers = Consumer::new(
        database.clone(),
        events,
        outbox.clone(),
        messages::STREAM,
        messages::SUBJECTS,
        messages::Answers,
    );
    tokio::spawn({
        let (lifecycle, identity, verifier) = (lifecycle.clone(), Arc::clone(&identity), Arc::clone(&verifier));
        let parts = move || {
            vec![
                identity.reload().map_err(anyhow::Error::from),
                minter.reload(&credentials).map_err(Into::into),
                verifier.reload(&credentials).map_err(Into::into),
            ]
        };
        async move { lifecycle.reload_by(parts).await }
    });

    // The database may come later: until then the listener answers, and says what it waits for.
    let server = Server::new(&settings, identity, routes, metrics, health).bind()?;
    let preparation = async {
        store.migrate(&stop).await?;
        schema.happened();
        let (tasks, until) = (lifecycle.tasks(), stop.clone());
        tasks.spawn(async move { relay.run(until).await });
        tasks.spawn(answers.run(stop.clone()));
        tasks.spawn(outcomes.run(store.clone(), stop.clone()));
        tasks.spawn(sweeper::run(store, stop.clone()));
        let recorder = outbox::refusals::recorder(outbox, database.clone(), messages::DOMAIN);
        tasks.spawn(refusals.run(stop, recorder));
        lifecycle.ready();
        anyhow::Ok(())
    };
    server.serve_prepared(&lifecycle, GRACE, preparation).await
}

/// `BERTH_ORDER_DEADLINE_SECONDS`, if set.
fn patience() -> anyhow::Result<Patience> {
    const VARIABLE: &str = "BERTH_ORDER_DEADLINE_SECONDS";
    match env::var(VARIABLE) {
        Err(env::VarError::NotPresent) => Ok(Patience::default()),
        value => value.map_err(anyhow::Error::from).and_then(|text| Ok(text.parse()?)).context(VARIABLE),
    }
}
