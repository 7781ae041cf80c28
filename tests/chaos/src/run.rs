//! One run: a mesh, a load, a schedule of faults, and the reckoning.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use chacha20::ChaCha8Rng;
use database::Statements as _;
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    clients::{self, Catalogue},
    fault::{Aftermath, Fault, Scene},
    invariants::{self, Finding},
    world::World,
};

/// A fault that has neither struck nor healed by then hangs.
const STRIKE: Duration = Duration::from_secs(180);
/// Faults at the same time, in a run of several.
const LANES: u64 = 2;

/// What a run is to be.
#[derive(Debug, Clone)]
pub struct Order {
    /// Decides everything that is decided.
    pub seed: u64,
    /// What may go wrong.
    pub faults: Vec<Fault>,
    /// How long clients ask and faults strike.
    pub span: Duration,
    /// How many clients ask at once.
    pub clients: u32,
    /// Whether the mesh's folder stays, whatever comes out.
    pub keep: bool,
}

/// What came out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What decided it.
    pub seed: u64,
    /// What went wrong on purpose.
    pub faults: Vec<Fault>,
    /// How long clients asked.
    pub seconds: u64,
    /// How many.
    pub clients: u32,
    /// How often each fault struck.
    pub strikes: BTreeMap<Fault, u32>,
    /// What clients remember, in numbers.
    pub counts: Counts,
    /// How long the mesh took to finish what it owed.
    pub quiet_after_seconds: f64,
    /// What was checked.
    pub findings: Vec<Finding>,
    /// Where the mesh lies that contradicted.
    pub kept: Option<PathBuf>,
}

/// What clients remember, in numbers.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// Requests, repetitions included.
    pub requests: u64,
    /// Orders that were wanted.
    pub orders: usize,
    /// Of which acknowledged.
    pub acknowledged: usize,
    /// Of which nobody knows from an answer.
    pub unknown: usize,
    /// Orders in the database that are confirmed, rejected, cancelled.
    pub confirmed: i64,
    /// See `confirmed`.
    pub rejected: i64,
    /// See `confirmed`.
    pub cancelled: i64,
    /// Events that the services owed.
    pub events: i64,
}

impl Report {
    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.findings.iter().all(Finding::holds)
    }

    /// The faults, as the command line has them.
    pub fn names(&self) -> String {
        self.faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(",")
    }

    /// The command that repeats the run.
    pub fn command(&self) -> String {
        let (seed, seconds, clients) = (self.seed, self.seconds, self.clients);
        format!("./berth chaos --seed {seed} --faults {} --seconds {seconds} --clients {clients}", self.names())
    }
}

/// Runs it; `tell` hears what happens when it does.
///
/// # Errors
/// The mesh does not come up, or the books cannot be read.
pub async fn run(order: &Order, tell: impl Fn(&str) + Send + Sync) -> Result<Report> {
    let world = Arc::new(World::up().await?);
    let outcome = torment(&world, order, &tell).await;
    let keep = order.keep || !outcome.as_ref().is_ok_and(Report::holds);
    let world = Arc::into_inner(world).ok_or_else(|| anyhow!("somebody still holds the world"))?;
    let kept = world.down(keep).await?;
    if let (Err(_), Some(folder)) = (&outcome, &kept) {
        tell(&format!("the mesh lies in {}", folder.display()));
    }
    outcome.map(|report| Report { kept, ..report })
}

async fn torment(world: &Arc<World>, order: &Order, tell: &(impl Fn(&str) + Sync)) -> Result<Report> {
    let mut dice = ChaCha8Rng::seed_from_u64(order.seed);
    let catalogue = Catalogue::stock(world, &mut dice).await?;
    let aftermath = Aftermath::default();
    let (began, end) = (Instant::now(), Instant::now() + order.span);
    let scene = Scene { world, catalogue: &catalogue, aftermath: &aftermath };
    let lanes = if order.faults.len() > 1 { LANES } else { 1 };
    let striking = (0..lanes).map(|lane| {
        let dice = ChaCha8Rng::seed_from_u64(order.seed ^ (lane + 1).rotate_right(8));
        strike_until(&scene, &order.faults, dice, (began, end), tell)
    });
    let (mut history, lanes) = tokio::join!(
        clients::run(world, &catalogue, order.seed, order.clients, end),
        futures_util::future::join_all(striking)
    );
    history.merge(std::mem::take(&mut *aftermath.history.lock().map_err(|_| anyhow!("a fault broke"))?));
    let poison = std::mem::take(&mut *aftermath.poison.lock().map_err(|_| anyhow!("a fault broke"))?);
    let (mut strikes, mut failures) = (BTreeMap::new(), Vec::new());
    for (fault, failure) in lanes.into_iter().flatten() {
        *strikes.entry(fault).or_insert(0) += 1;
        failures.extend(failure);
    }
    tell("everything is healed; waiting for what is owed");
    let healed = Instant::now();
    if let Err(error) = world.all_ready().await {
        failures.push(format!("{error:#}"));
    }
    let restored = strikes.contains_key(&Fault::DatabaseRestored);
    let quiet = invariants::quiesce(world, restored).await;
    let quiet_after_seconds = healed.elapsed().as_secs_f64();
    let mut findings = vec![Finding::new("every fault heals", failures), quiet];
    findings.extend(invariants::check(world, &history, &poison, restored).await?);
    let (acknowledged, unknown) = history.tally();
    let (requests, orders) = (history.requests, history.orders.len());
    let counts = Counts { requests, orders, acknowledged, unknown, ..counts(world).await? };
    Ok(Report {
        seed: order.seed,
        faults: order.faults.clone(),
        seconds: order.span.as_secs(),
        clients: order.clients,
        strikes,
        counts,
        quiet_after_seconds,
        findings,
        kept: None,
    })
}

/// One fault after the other; gives each with what kept it from healing.
async fn strike_until(
    scene: &Scene<'_>,
    faults: &[Fault],
    mut dice: ChaCha8Rng,
    (began, end): (Instant, Instant),
    tell: &impl Fn(&str),
) -> Vec<(Fault, Option<String>)> {
    let mut struck = Vec::new();
    loop {
        sleep(Duration::from_millis(dice.random_range(200..2500))).await;
        if Instant::now() >= end {
            return struck;
        }
        let Some(fault) = faults.choose(&mut dice).copied() else { return struck };
        // What one strike draws must not depend on how far the one before came.
        let mut own = ChaCha8Rng::seed_from_u64(dice.random());
        let outcome = timeout(STRIKE, fault.strike(scene, &mut own)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it has not healed after {STRIKE:?}")));
        let at = began.elapsed().as_secs_f64();
        match outcome {
            Ok(done) => {
                tell(&format!("{at:6.1} s  {}: {done}", fault.name()));
                struck.push((fault, None));
            }
            Err(error) => {
                tell(&format!("{at:6.1} s  {}: FAILED: {error:#}", fault.name()));
                struck.push((fault, Some(format!("{}: {error:#}", fault.name()))));
            }
        }
    }
}

async fn counts(world: &World) -> Result<Counts> {
    let mut counts = Counts::default();
    let documents = world.database(crate::world::DOCUMENTS)?.get().await?;
    let sql =
        "SELECT count(*) FILTER (WHERE state IN ('CONFIRMED', 'INVOICED')), count(*) FILTER (WHERE state = 'REJECTED'),
        count(*) FILTER (WHERE state = 'CANCELLED') FROM documents WHERE kind = 'order'";
    let row = documents.one(sql, &[]).await?;
    (counts.confirmed, counts.rejected, counts.cancelled) = (row.get(0), row.get(1), row.get(2));
    for (_, database) in world.messengers() {
        counts.events += database.get().await?.one("SELECT count(*) FROM outbox", &[]).await?.get::<_, i64>(0);
    }
    Ok(counts)
}
