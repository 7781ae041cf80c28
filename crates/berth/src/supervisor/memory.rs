//! The bound on a unit's memory, as far as it holds without a cgroup: what each unit uses is read from `/proc` once a
//! second, and who uses more than it may is told to its executor.
//!
//! A cgroup would refuse the page that is one too many, but a user who runs a mesh on a workstation may seldom make one.
//! `RLIMIT_AS` and `RLIMIT_DATA` bound what a process reserves and not what it uses: a JVM, a V8 and Wine reserve many
//! times of what they ever touch, and each child would have the whole bound for itself.

use std::time::Duration;

use tokio::{
    sync::{mpsc::WeakSender, watch},
    task::spawn_blocking,
    time::sleep,
};

use super::{board::Board, unit::Event};
use crate::usage::Sampler;

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// A unit whose memory is bounded.
#[derive(Debug)]
pub(super) struct Limited {
    /// Its name.
    pub(super) unit: String,
    /// The most it may use, in bytes.
    pub(super) most: u64,
    /// Its executor; weak, since an executor ends when nobody can give it orders any more.
    pub(super) orders: WeakSender<Event>,
}

/// Watches in the background, until all executors are gone.
pub(super) fn watch(units: Vec<Limited>, board: watch::Receiver<Board>) {
    if units.is_empty() {
        return;
    }
    tokio::spawn(async move {
        while units.iter().any(|unit| unit.orders.upgrade().is_some()) {
            sleep(PERIOD).await;
            let seen = board.borrow().clone();
            // It reads a file of each process of the machine. An error means that the runtime is ending.
            let Ok(usage) = spawn_blocking(move || Sampler::default().sample(&seen)).await else { return };
            for unit in &units {
                let used = usage.get(&unit.unit).map_or(0, |usage| usage.memory_bytes);
                if used > unit.most
                    && let Some(orders) = unit.orders.upgrade()
                {
                    // It fails only when the executor is gone, and with it the process.
                    let _ = orders.send(Event::Uses(used)).await;
                }
            }
        }
    });
}
