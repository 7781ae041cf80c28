//! A domain write with its outbox row: through the library, and by hand.

use anyhow::Result;
use database::{Database, ScopedFutureExt as _, Statements as _};
use outbox::{NewEvent, Outbox};
use serde_json::Value;
use uuid::Uuid;

use super::{Goal, Servers, median, raw, report::Bound};

const WRITES: u64 = 8000;

pub(super) async fn measure(servers: &Servers, rounds: u32) -> Result<Goal> {
    let (database, data) = (&servers.documents, raw::data());
    let (mut by_hand, mut ours) = (Vec::new(), Vec::new());
    let raw = async || {
        servers.clear().await?;
        raw::by_all_writers(WRITES, || raw::write(database, &data)).await
    };
    let our = async || {
        servers.clear().await?;
        raw::by_all_writers(WRITES, || write(database, &data)).await
    };
    // The first round prepares statements and fills caches. Who goes first changes: what was written before is still on its way to the disk.
    for round in 0..=rounds {
        let (raw, our) = if round % 2 == 0 {
            let raw = raw().await?;
            (raw, our().await?)
        } else {
            let our = our().await?;
            (raw().await?, our)
        };
        if round > 0 {
            by_hand.push(raw);
            ours.push(our);
        }
    }
    let (by_hand, ours) = (median(by_hand), median(ours));
    Ok(Goal {
        what: "domain write with outbox row",
        goal: ">= 0.95 of the same SQL by hand",
        figures: vec![("ours", ours, "tx/s"), ("by hand", by_hand, "tx/s")],
        result: ours / by_hand,
        bound: Bound::AtLeast(0.95),
    })
}

pub(super) async fn write(database: &Database, data: &Value) -> Result<()> {
    let thing = Uuid::now_v7();
    let event = NewEvent { subject: raw::SUBJECT, aggregate_id: thing, saga: None, initiator: None, trace: None, data };
    let written: Result<Uuid, outbox::Error> = database
        .transaction(|tx| {
            async move {
                tx.run(raw::THING, &[&thing, &"thing", &1_i64]).await?;
                Outbox::put(tx, event).await
            }
            .scope_boxed()
        })
        .await;
    written?;
    Ok(())
}
