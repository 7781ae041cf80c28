//! What was refused, on its way to the audit.
//!
//! Whoever refuses a caller [notes](Refusals::note) it, which costs no I/O and never waits; a task of the process
//! [records](Refusals::run) what was noted: in the outbox where there is one, else with the audit service itself. Because anybody
//! can be refused as often as they like, what comes of it is bounded: the same refusal is counted, not repeated; at most
//! [`BURST`] records at once and [`PER_SECOND`] in the long run are made; of what does not fit into memory only the number is kept.
//!
//! What a process noted and had not recorded when it was killed is in its log alone, where each refusal stands at once.

mod post;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use runtime::{clock::Clock, retry::Backoff, trace::TraceContext};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

pub use post::{AUDIT, PATH, Post, PostError};

/// Records that may be made at once.
pub const BURST: u32 = 100;
/// Records that may be made a second, in the long run.
pub const PER_SECOND: u32 = 1;

/// All refusals of one service are events of one aggregate, so that what is kept about aggregates does not grow with the
/// number of callers.
pub const AGGREGATE: Uuid = Uuid::from_u128(0x8c7b_9f0e_2d41_8a3b_9e55_0c1d_ac3e_55ed);

/// Different refusals that are held until they are recorded.
const HELD: usize = 256;
/// What is kept of a text that a caller chooses, in bytes.
const MAX_TEXT: usize = 200;
/// How long refusals gather before they are recorded.
const GATHER: Duration = Duration::from_millis(250);
/// How often those that only were counted are told of.
const OMITTED_PERIOD: Duration = Duration::from_secs(60);

/// Something that a caller was not allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// The subject of whoever asked; absent when nobody proved to be anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Their roles.
    pub roles: BTreeSet<String>,
    /// What they wanted to do.
    pub action: String,
    /// To what.
    pub resource: String,
    /// Why not.
    pub reason: String,
    /// The address they came from, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub client: Option<IpAddr>,
}

/// How often something happened, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// When first.
    #[schema(value_type = String, format = DateTime)]
    pub first_at: Timestamp,
    /// When last.
    #[schema(value_type = String, format = DateTime)]
    pub last_at: Timestamp,
    /// The trace of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl Tally {
    fn one(now: Timestamp) -> Self {
        Self { count: 1, first_at: now, last_at: now, trace_id: TraceContext::current().map(|trace| trace.trace_id()) }
    }

    fn another(&mut self, now: Timestamp) {
        self.count = self.count.saturating_add(1);
        self.last_at = now;
    }
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Unique: a report that comes twice is known by it. UUIDv7.
    pub id: Uuid,
    /// What was refused. Absent: various things, too many to be told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// How often, and when.
    #[serde(flatten)]
    pub tally: Tally,
}

impl Report {
    /// Whether it tells of one kind of refusal, and not only of a number.
    #[must_use]
    pub fn is_of_one(&self) -> bool {
        self.refusal.is_some()
    }

    /// Who was refused, if that is known.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.refusal.as_ref()?.principal.as_deref()
    }
}

/// The refusals of this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    clock: Clock,
    book: Mutex<Book>,
    noted: Notify,
}

impl Refusals {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, ..Inner::default() }))
    }

    /// Notes one.
    pub fn note(&self, refusal: Refusal) {
        let now = self.0.clock.now();
        self.with(|book| book.note(refusal, now));
        self.0.noted.notify_one();
    }

    /// Records what is noted until `stop`, and then once more. `record` is asked again with the same reports until it
    /// succeeds.
    pub async fn run<F, E>(self, stop: CancellationToken, record: impl Fn(Arc<[Report]>) -> F)
    where
        F: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        while stop.run_until_cancelled(self.0.noted.notified()).await.is_some() {
            let _ = stop.run_until_cancelled(sleep(GATHER)).await;
            loop {
                let reports: Arc<[Report]> = self.with(|book| book.take(self.0.clock.now())).into();
                if !reports.is_empty() && stop.run_until_cancelled(persist(&reports, &record)).await.is_none() {
                    let _ = record(reports).await;
                }
                if self.with(|book| book.is_empty()) || stop.run_until_cancelled(sleep(GATHER)).await.is_none() {
                    break;
                }
            }
        }
        let rest: Arc<[Report]> = self.with(Book::take_all).into();
        if !rest.is_empty()
            && let Err(error) = record(rest).await
        {
            tracing::warn!(%error, "the last refusals could not be recorded: they are in the log only");
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Book) -> T) -> T {
        work(&mut self.0.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Tries until it succeeds; a failure is logged when it begins.
async fn persist<F, E>(reports: &Arc<[Report]>, record: &impl Fn(Arc<[Report]>) -> F)
where
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut failing = false;
    while let Err(error) = record(Arc::clone(reports)).await {
        if !failing {
            tracing::warn!(%error, reports = reports.len(), "refusals cannot be recorded now");
        }
        failing = true;
        sleep(pauses.delay()).await;
    }
}

/// What is noted and not recorded.
#[derive(Debug, Default)]
struct Book {
    held: BTreeMap<Refusal, Tally>,
    omitted: Option<Tally>,
    omitted_told: Timestamp,
    /// Records that were made of late, and when that was last counted down.
    spent: u32,
    counted: Timestamp,
}

impl Book {
    fn note(&mut self, refusal: Refusal, now: Timestamp) {
        let refusal = clipped(refusal);
        if let Some(tally) = self.held.get_mut(&refusal) {
            tally.another(now);
        } else if self.held.len() < HELD {
            self.held.insert(refusal, Tally::one(now));
        } else if let Some(tally) = &mut self.omitted {
            tally.another(now);
        } else {
            self.omitted = Some(Tally::one(now));
        }
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.omitted.is_none()
    }

    /// What may be recorded now, the oldest first.
    fn take(&mut self, now: Timestamp) -> Vec<Report> {
        let seconds = u32::try_from(now.duration_since(self.counted).as_secs()).unwrap_or(0);
        if seconds > 0 {
            self.spent = self.spent.saturating_sub(seconds.saturating_mul(PER_SECOND));
            self.counted = now;
        }
        let mut due: Vec<_> = self.held.iter().map(|(refusal, tally)| (tally.first_at, refusal.clone())).collect();
        due.sort();
        due.truncate(usize::try_from(BURST.saturating_sub(self.spent)).unwrap_or(0));
        self.spent = self.spent.saturating_add(u32::try_from(due.len()).unwrap_or(BURST));
        let mut reports: Vec<Report> = due
            .into_iter()
            .filter_map(|(_, refusal)| Some(report(self.held.remove(&refusal)?, Some(refusal))))
            .collect();
        if now.duration_since(self.omitted_told).unsigned_abs() >= OMITTED_PERIOD
            && let Some(tally) = self.omitted.take()
        {
            self.omitted_told = now;
            reports.push(report(tally, None));
        }
        reports
    }

    /// Everything: at most [`HELD`] and one.
    fn take_all(&mut self) -> Vec<Report> {
        let held = std::mem::take(&mut self.held).into_iter().map(|(refusal, tally)| report(tally, Some(refusal)));
        held.chain(self.omitted.take().map(|tally| report(tally, None))).collect()
    }
}

fn report(tally: Tally, refusal: Option<Refusal>) -> Report {
    Report { id: Uuid::now_v7(), refusal, tally }
}

/// Bounded, and without what no text column takes.
fn clipped(refusal: Refusal) -> Refusal {
    let clip = |text: String| {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.get(..end).unwrap_or_default().replace('\0', "\u{fffd}")
    };
    let Refusal { principal, roles, action, resource, reason, client } = refusal;
    Refusal {
        principal: principal.map(clip),
        roles: roles.into_iter().take(16).map(clip).collect(),
        action: clip(action),
        resource: clip(resource),
        reason: clip(reason),
        client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(resource: impl ToString) -> Refusal {
        Refusal {
            principal: Some("mallory".to_owned()),
            roles: BTreeSet::new(),
            action: "view-item".to_owned(),
            resource: resource.to_string(),
            reason: "no policy permits it".to_owned(),
            client: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn the_same_refusal_is_counted_and_not_repeated() {
        let mut book = Book::default();
        for second in 0..10 {
            book.note(refusal("Item/1"), at(second));
        }
        book.note(refusal("Item/2"), at(3));
        let reports = book.take(at(10));
        let told: Vec<_> = reports
            .iter()
            .map(|report| (report.refusal.clone().unwrap().resource, report.tally.count, report.tally.last_at))
            .collect();
        assert_eq!(told, [("Item/1".to_owned(), 10, at(9)), ("Item/2".to_owned(), 1, at(3))]);
        assert!(book.is_empty() && book.take(at(11)).is_empty());
    }

    /// A flood of a million different refusals within ten minutes.
    #[test]
    fn a_flood_is_bounded_in_memory_and_in_records_and_none_is_uncounted() {
        let (mut book, mut records, mut counted) = (Book::default(), 0, 0);
        for number in 0..1_000_000_i64 {
            let now = at(number * 600 / 1_000_000);
            book.note(refusal(number), now);
            assert!(book.held.len() <= HELD);
            if number % 500 == 0 {
                let reports = book.take(now);
                records += reports.len();
                counted += reports.iter().map(|report| report.tally.count).sum::<u64>();
            }
        }
        counted += book.take_all().iter().map(|report| report.tally.count).sum::<u64>();
        assert_eq!(counted, 1_000_000);
        assert!(records <= 100 + 600 + 11, "{records}");
    }

    #[test]
    fn what_a_caller_chooses_is_bounded() {
        let mut book = Book::default();
        book.note(refusal(format!("a\0{}", "é".repeat(1000))), at(0));
        let resource = book.take(at(1)).remove(0).refusal.unwrap().resource;
        assert!(resource.len() <= MAX_TEXT + 2 && resource.starts_with("a\u{fffd}é"), "{resource}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_recorded_is_tried_again_and_the_rest_is_recorded_at_the_end() {
        let refusals = Refusals::new(Clock::manual(at(0)));
        let (stop, recorded, failures) =
            (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())), Mutex::new(3_u32));
        refusals.note(refusal("Item/1"));
        let record = {
            let recorded = Arc::clone(&recorded);
            move |reports: Arc<[Report]>| {
                let mut left = failures.lock().unwrap();
                let outcome = if *left == 0 { Ok(()) } else { Err("away") };
                *left = left.saturating_sub(1);
                if outcome.is_ok() {
                    recorded
                        .lock()
                        .unwrap()
                        .extend(reports.iter().map(|report| report.refusal.clone().unwrap().resource));
                }
                std::future::ready(outcome)
            }
        };
        let running = tokio::spawn(refusals.clone().run(stop.clone(), record));
        while recorded.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
        stop.cancel();
        refusals.note(refusal("Item/2"));
        running.await.unwrap();
        assert_eq!(*recorded.lock().unwrap(), ["Item/1", "Item/2"]);
    }
}
