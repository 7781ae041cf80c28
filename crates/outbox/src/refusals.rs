//! Telling the audit what a service refused, by events of its own: `<domain>.access.refused`, and `<domain>.access.omitted` for
//! what was too much to be told apart. What they carry is a [`Report`].

use std::sync::Arc;

use auth::refusals::{AGGREGATE, Report};
use database::Database;
use futures_util::future::BoxFuture;

use crate::{Error, NewEvent, Outbox};

/// What [`auth::refusals::Refusals::run`] records refusals by: puts them into the outbox, as events of this domain.
pub fn recorder(
    outbox: Outbox,
    database: Database,
    domain: &str,
) -> impl Fn(Arc<[Report]>) -> BoxFuture<'static, Result<(), Error>> + use<> {
    let subjects: Arc<[String; 2]> = Arc::new(subjects(domain));
    move |reports| {
        let (outbox, database, subjects) = (outbox.clone(), database.clone(), Arc::clone(&subjects));
        Box::pin(async move {
            let [refused, omitted] = &*subjects;
            let event = |report| NewEvent {
                subject: if Report::is_of_one(report) { refused } else { omitted },
                aggregate_id: AGGREGATE,
                saga: None,
                initiator: report.principal(),
                trace: None,
                data: report,
            };
            outbox.emit(&database, &reports.iter().map(event).collect::<Vec<_>>()).await
        })
    }
}

/// The subjects of a domain's refusals: of those that were told apart, and of the others.
#[must_use]
pub fn subjects(domain: &str) -> [String; 2] {
    ["refused", "omitted"].map(|event| format!("{domain}.access.{event}"))
}
