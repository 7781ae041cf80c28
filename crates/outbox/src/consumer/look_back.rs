//! Delivering again what the database has lost.
//!
//! An event is acknowledged after the commit of its effect, and then the event server never sends it again. When the database is put
//! back to an older state, or a replica takes over that had not got everything, effects are gone that the server believes
//! to be there. So the database notes up to where it has everything for certain ([`Progress`]), and whenever it is not known to be
//! the very same run of the very same server that noted it, everything behind that place is delivered once more, by a
//! consumer made for that. What is there already is recognized, as any duplicate is.
//!
//! After an ordinary start that is what was acknowledged since the last note, some hundred milliseconds before.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{AGAIN, Handler, Inner, Interrupted, Line, SweepError};
use crate::inbox::Progress;

/// How long the server keeps the consumer when nobody pulls from it any more.
const ABANDONED: Duration = Duration::from_secs(300);

/// Longest wait for further messages before it is looked whether there can be any.
const PATIENCE: Duration = Duration::from_millis(200);

impl<H: Handler> Inner<H> {
    /// Looks after it until `stop`.
    pub(super) async fn look_back(&self, line: &Line, stop: &CancellationToken) {
        let mut ticks = interval(self.options.sweep);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut certain = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            if !self.events.is_connected() {
                continue;
            }
            match self.keep_up(certain.take(), line, stop).await {
                Ok(run) => certain = run,
                Err(error) => tracing::debug!(consumer = self.inbox.consumer, %error, "cannot note the progress now"),
            }
        }
    }

    /// Notes up to where everything is here. `certain` is the run of the database server of which that is known since the last time;
    /// gives the one of which it is known now.
    async fn keep_up(
        &self,
        certain: Option<String>,
        line: &Line,
        stop: &CancellationToken,
    ) -> Result<Option<String>, SweepError> {
        let noted = self.inbox.progress(&*self.database.get().await?).await?;
        // Everything acknowledged up to here was committed before, in this run or in one before it.
        let there = self.info().await?;
        let unsure = certain.as_ref() != Some(&noted.server_run);
        if unsure {
            let alone = self.database.dedicated().await?;
            let until = there.delivered.stream_sequence;
            if !self.inbox.look_back_alone(&alone).await? || !self.deliver_again(noted.floor, until, line, stop).await?
            {
                return Ok(None);
            }
        }
        let floor = i64::try_from(there.ack_floor.stream_sequence).unwrap_or(i64::MAX);
        let progress = Progress { floor, server_run: noted.server_run };
        if unsure || floor != noted.floor {
            self.inbox.note_progress(&*self.database.get().await?, &progress).await?;
        }
        Ok(Some(progress.server_run))
    }

    /// Has everything delivered again behind `floor` and up to `until`. False when it was stopped.
    async fn deliver_again(
        &self,
        floor: i64,
        until: u64,
        line: &Line,
        stop: &CancellationToken,
    ) -> Result<bool, Interrupted> {
        let floor = u64::try_from(floor).unwrap_or_default();
        if until <= floor {
            return Ok(true);
        }
        let name = format!("{}_again", self.events.service());
        let stream = self.events.jetstream().get_stream_no_info(&self.stream).await.map_err(Interrupted::by)?;
        // One that an earlier process left begins elsewhere.
        let _ = stream.delete_consumer(&name).await;
        let begin = DeliverPolicy::ByStartSequence { start_sequence: floor + 1 };
        let config =
            pull::Config { durable_name: Some(name.clone()), inactive_threshold: ABANDONED, ..self.config(begin) };
        let consumer = self.subscribe(config).await?;
        tracing::info!(consumer = self.inbox.consumer, from = floor + 1, until, "looking back");
        loop {
            self.pull(&consumer, AGAIN, PATIENCE, line, stop).await?;
            if stop.is_cancelled() {
                return Ok(false);
            }
            let info = stream.consumer_info(&name).await.map_err(Interrupted::by)?;
            let empty = info.num_pending == 0 && info.num_ack_pending == 0;
            if empty || info.ack_floor.stream_sequence >= until {
                break;
            }
        }
        let _ = stream.delete_consumer(&name).await;
        Ok(true)
    }
}
