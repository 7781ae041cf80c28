//! The gateway's wiring.

use std::{env, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use auth::{
    internal::Minter,
    refusals::{Post, Refusals},
};
use axum::Router;
use berth_http::{
    health::Health,
    server::{self, Server},
    upstream::UpstreamMetrics,
};
use gateway::{
    AccessLog, Gateway, GatewayMetrics, Means, Reloadable,
    listener::{ALPN, Listener},
    read_plan,
};
use runtime::{
    clock::Clock,
    credentials::Credentials,
    lifecycle::Lifecycle,
    settings::Settings,
    sockets,
    telemetry::{self, Metrics},
};
use tls::{Identity, PublicCertificate};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a start waits for every route to have an instance. After it the gateway serves what there is: a route
/// without an instance answers 503, and is no reason to withhold the others.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long requests may take to end once the drain has begun.
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
    let plan_path = PathBuf::from(required("BERTH_PLAN", "the path of the resolved plan")?);
    let public: SocketAddr = required("BERTH_PUBLIC_LISTEN", "the address of the public listener, as IP:PORT")?
        .parse()
        .context("BERTH_PUBLIC_LISTEN must be IP:PORT")?;

    let certificate = PublicCertificate::load(&credentials)?;
    let minter = Arc::new(Minter::load(&credentials, identity.id(), Clock::system())?);
    let (metrics, refusals) = (Metrics::new(), Refusals::new(Clock::system()));
    let means = Means {
        identity: Arc::clone(&identity),
        credentials,
        minter: Arc::clone(&minter),
        refusals: refusals.clone(),
        clock: Clock::system(),
        metrics: GatewayMetrics::register(&metrics),
        upstream_metrics: UpstreamMetrics::register(&metrics),
    };
    // A mesh without an audit service has refusals in the log alone.
    if let Some(audit) = Post::to_audit(&settings, &identity, minter, &means.upstream_metrics)? {
        let record = move |reports| {
            let audit = audit.clone();
            async move { audit.record(reports).await }
        };
        lifecycle.tasks().spawn(refusals.run(lifecycle.draining(), record));
    }
    let log = AccessLog::stdout(&settings.service, &settings.instance, &means.metrics)?;
    let gateway = Gateway::start(read_plan(&plan_path)?, means.clone(), log.clone())?;

    let listener =
        Listener::new(sockets::listener("https", public)?, certificate.server_config(&ALPN)?, gateway.clone());
    let (health, warm) = (Health::new(), CancellationToken::new());
    health.check("routes", {
        let (gateway, warm) = (gateway.clone(), warm.clone());
        move || std::future::ready(if warm.is_cancelled() { Ok(()) } else { Err(waiting_for(&gateway)) })
    });
    let internal = Server::new(&settings, identity, Router::new(), metrics, health).bind()?;
    let reloadable = Reloadable { plan: plan_path, gateway: gateway.clone(), certificate, means };

    tokio::spawn(reloadable.run(lifecycle.clone()));
    tokio::join!(listener.serve(&lifecycle), internal.serve(&lifecycle), async {
        tokio::select! {
            _ = timeout(PATIENCE, gateway.all_up()) => {}
            () = lifecycle.draining().cancelled_owned() => {}
        }
        warm.cancel();
        lifecycle.ready();
        lifecycle.drained(GRACE).await;
    });
    log.flush();
    Ok(())
}

fn waiting_for(gateway: &Gateway) -> String {
    format!("no instance is up yet of {}", gateway.unavailable().join(", "))
}

fn required(name: &str, meaning: &str) -> anyhow::Result<String> {
    env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .with_context(|| format!("{name} is not set: set it to {meaning}"))
}
