//! What is consumed: every event, as it comes; and what is emitted: signed heads of the chain.

use auth::refusals::Report;
use database::{Database, Transaction};
use outbox::{Event, Handler, HandlerError, asyncapi::Description};
use serde::Deserialize as _;

use crate::{checkpoint::Checkpoint, domain::Record, store};

/// The subjects of everything this service emits.
pub const EMITTED: [&str; 1] = ["audit.>"];

/// A signed head.
pub const CHECKPOINT: &str = "audit.checkpoint.signed";

/// What this service emits, for others to read.
#[must_use]
pub fn described() -> Description {
    Description::new("audit", "Signed heads of the audit's chain.").event::<Checkpoint>(CHECKPOINT)
}

/// The aggregate type of refusals.
const ACCESS: &str = "access";

/// Takes every event in, of whatever version.
#[derive(Debug, Clone, Copy)]
pub struct Recorder;

impl Handler for Recorder {
    async fn handle(&self, tx: &Transaction<'_>, event: &Event) -> Result<(), HandlerError> {
        let record = of_event(event).map_err(|error| HandlerError::Permanent(error.to_string()))?;
        Ok(store::take_in(tx, &record).await?)
    }

    fn understands(&self, _: &Event) -> bool {
        true
    }
}

/// The event with all its attributes. Of a refusal the subject is what somebody wanted to reach.
fn of_event(event: &Event) -> serde_json::Result<Record> {
    let refused = (event.aggregate.kind == ACCESS).then(|| Report::deserialize(&event.data).ok()).flatten();
    let resource = refused.and_then(|report| report.refusal).map(|refusal| refusal.resource);
    Ok(Record {
        id: event.id,
        kind: event.subject.clone(),
        source: event.source.clone(),
        subject: resource.unwrap_or_else(|| format!("{}/{}", event.aggregate.kind, event.aggregate.id)),
        actor: event.initiator.clone(),
        occurred_at: event.time,
        content: String::from_utf8_lossy(&event.to_json()?).into_owned(),
    })
}

/// What a service without an outbox refused, as that service reports it.
///
/// # Errors
/// Never for reports that came as JSON.
pub fn of_report(source: &str, service: &str, report: &Report) -> serde_json::Result<Record> {
    let event = if report.is_of_one() { "refused" } else { "omitted" };
    Ok(Record {
        id: report.id,
        kind: format!("{service}.{ACCESS}.{event}"),
        source: source.to_owned(),
        subject: report.refusal.as_ref().map_or_else(|| ACCESS.to_owned(), |refusal| refusal.resource.clone()),
        actor: report.principal().map(str::to_owned),
        occurred_at: report.tally.first_at,
        content: serde_json::to_string(report)?,
    })
}

/// Takes in what services refused, without a place for doubt: all of it or nothing.
///
/// # Errors
/// That of the database, or that a report has no JSON form.
pub async fn take_in_reports(
    database: &Database,
    source: &str,
    service: &str,
    reports: &[Report],
) -> Result<(), TakeInError> {
    let records: Vec<Record> =
        reports.iter().map(|report| of_report(source, service, report)).collect::<Result<_, _>>()?;
    let mut client = database.get().await?;
    let tx = client.transaction().await.map_err(database::Error::from)?;
    for record in &records {
        store::take_in(&tx, record).await?;
    }
    tx.commit().await.map_err(database::Error::from)?;
    Ok(())
}

/// Why reports were not taken in.
#[derive(Debug, thiserror::Error)]
pub enum TakeInError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// A report has no JSON form.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}
