//! The supervisor: keeps the units of a mesh running on this machine, by the rules systemd would apply.
//!
//! [`unit`] decides, [`executor`] acts, [`board`] shows. What is to be run comes in as [`Specification`]s; nothing here
//! knows what a mesh, a database or a secret is.

pub mod board;
pub mod executor;
pub mod leftovers;
pub mod log;
mod memory;
pub mod notify;
pub mod probe;
pub mod specification;
pub mod unit;

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use board::{Board, Phase, StateName, UnitStatus};
use executor::{Executor, Surroundings};
use log::{Bounds, Log};
use memory::Limited;
use specification::Specification;
use unit::Event;

/// Orders that may wait at one unit.
const ORDERS: usize = 16;

/// All units of a mesh.
#[derive(Debug)]
pub struct Supervisor {
    units: Vec<Supervised>,
    surroundings: Arc<Surroundings>,
}

#[derive(Debug)]
struct Supervised {
    name: String,
    service: String,
    after: Vec<String>,
    is_entrance: bool,
    patience: Duration,
    memory: Option<u64>,
    orders: mpsc::Sender<Event>,
}

/// Why units were not restarted.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// There is no such service, server or instance.
    #[error("there is no service or instance named {name}; there are: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A unit did not become ready again.
    #[error("{name} did not become ready again: {reason}")]
    NotReady {
        /// The unit.
        name: String,
        /// What it last failed of.
        reason: String,
    },
}

impl Supervisor {
    /// Starts all units; those whose dependencies are not ready yet wait for them. Logs go to `logs`, a file each.
    ///
    /// # Errors
    /// A log cannot be opened.
    pub async fn start(
        specifications: Vec<Specification>,
        surroundings: Surroundings,
        logs: &Path,
        bounds: Bounds,
    ) -> io::Result<Self> {
        let surroundings = Arc::new(surroundings);
        surroundings.board.send_modify(|board| {
            board.units = specifications.iter().map(UnitStatus::new).collect();
            board.phase = Phase::Running;
        });
        let mut supervisor = Self { units: Vec::new(), surroundings };
        for specification in specifications {
            let log = Log::open(&logs.join(format!("{}.log", specification.name)), bounds)?;
            supervisor.add(specification, log);
        }
        memory::watch(supervisor.limited(), supervisor.board());
        supervisor.order_all(&Event::Start).await;
        Ok(supervisor)
    }

    fn add(&mut self, specification: Specification, log: Log) {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let policy = &specification.policy;
        self.units.push(Supervised {
            name: specification.name.clone(),
            service: specification.service.clone(),
            after: specification.after.clone(),
            is_entrance: !specification.sockets.is_empty(),
            patience: policy.start_timeout + policy.stop_timeout + policy.backoff.max,
            memory: policy.memory,
            orders,
        });
        let executor = Executor::new(specification, Arc::clone(&self.surroundings), log);
        tokio::spawn(executor.run(inbox));
    }

    /// The units whose memory is bounded.
    fn limited(&self) -> Vec<Limited> {
        let limited = |unit: &Supervised| {
            Some(Limited { unit: unit.name.clone(), most: unit.memory?, orders: unit.orders.downgrade() })
        };
        self.units.iter().filter_map(limited).collect()
    }

    async fn order_all(&self, event: &Event) {
        for unit in &self.units {
            unit.order(event).await;
        }
    }

    /// The picture of all units, and its changes.
    pub fn board(&self) -> watch::Receiver<Board> {
        self.surroundings.board.subscribe()
    }

    /// Stops all units, each one after all that come after it. Whoever holds a public socket goes first: what is on its
    /// way inside is finished, and nothing new comes in.
    pub async fn stop(&self) {
        self.surroundings.board.send_modify(|board| board.phase = Phase::Stopping);
        let mut board = self.board();
        loop {
            let stoppable: Vec<&Supervised> = {
                let now = board.borrow_and_update();
                let running =
                    |unit: &&Supervised| now.unit(&unit.name).is_some_and(|status| status.state != StateName::Stopped);
                let running: Vec<&Supervised> = self.units.iter().filter(running).collect();
                let keeps = |unit: &Supervised, other: &Supervised| {
                    other.after.contains(&unit.service) || (other.is_entrance && !unit.is_entrance)
                };
                let free = |unit: &&&Supervised| !running.iter().any(|other| keeps(unit, other));
                running.iter().filter(free).copied().collect()
            };
            if stoppable.is_empty() {
                return;
            }
            for unit in stoppable {
                unit.order(&Event::Stop).await;
            }
            if board.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends all units at once, by SIGKILL, and waits until they are gone.
    pub async fn kill(&self) {
        self.order_all(&Event::Kill).await;
        let ended = |board: &Board| board.units.iter().all(|unit| unit.state == StateName::Stopped);
        // An error means that the board is gone, and with it everything on it.
        let _ = self.board().wait_for(ended).await;
    }

    /// Restarts one unit, or all instances of a service one after the other: the next one when the one before is ready.
    ///
    /// # Errors
    /// Nothing has that name, or a unit does not become ready again.
    pub async fn restart(&self, name: &str) -> Result<(), RestartError> {
        let chosen: Vec<&Supervised> =
            self.units.iter().filter(|unit| unit.name == name || unit.service == name).collect();
        if chosen.is_empty() {
            let mut known: Vec<String> = self.units.iter().map(|unit| unit.service.clone()).collect();
            known.dedup();
            return Err(RestartError::Unknown { name: name.to_owned(), known });
        }
        for unit in chosen {
            self.restart_one(unit).await?;
        }
        Ok(())
    }

    async fn restart_one(&self, unit: &Supervised) -> Result<(), RestartError> {
        let mut board = self.board();
        let starts = board.borrow().unit(&unit.name).map_or(0, |status| status.starts);
        unit.order(&Event::Restart).await;
        let again =
            |board: &Board| board.unit(&unit.name).is_some_and(|status| status.is_ready() && status.starts > starts);
        if matches!(timeout(unit.patience, board.wait_for(again)).await, Ok(Ok(_))) {
            return Ok(());
        }
        let reason = board.borrow().unit(&unit.name).and_then(|status| status.reason.clone());
        let reason = reason.unwrap_or_else(|| format!("it took longer than {:?}", unit.patience));
        Err(RestartError::NotReady { name: unit.name.clone(), reason })
    }
}

impl Supervised {
    async fn order(&self, event: &Event) {
        // It fails only when the executor is gone, and with it the process.
        let _ = self.orders.send(event.clone()).await;
    }
}
