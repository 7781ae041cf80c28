//! What everybody may know about a running mesh: one picture of all units, kept current by their executors, watched by
//! dependants, the control socket and the live view.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    specification::Specification,
    unit::{State, Unit},
};

/// A running mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// The mesh's name.
    pub mesh: String,
    /// The gateway's base URL.
    pub public_url: String,
    /// Process id of the supervisor.
    pub supervisor: u32,
    /// What the mesh as a whole is doing.
    pub phase: Phase,
    /// Its units, in the order they start.
    pub units: Vec<UnitStatus>,
}

/// What a mesh as a whole is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Secrets, configuration and data folders are made.
    #[default]
    Preparing,
    /// Units are supervised.
    Running,
    /// All units are being stopped.
    Stopping,
}

/// One unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Its name: `item-management-1`, `item-management-db`, `nats`.
    pub name: String,
    /// What it is an instance of: `item-management`; its own name for a server.
    pub service: String,
    /// Where it stands.
    pub state: StateName,
    /// Since when.
    pub since: Timestamp,
    /// Process id, while a process runs.
    pub pid: Option<u32>,
    /// Times it was started again without being asked.
    pub restarts: u64,
    /// Times a process was started for it.
    pub starts: u64,
    /// Where it listens.
    pub address: Option<SocketAddr>,
    /// Services and servers of which one instance must be ready before it starts.
    pub after: Vec<String>,
    /// What it says about itself (`STATUS=`).
    pub says: Option<String>,
    /// Why it failed last.
    pub reason: Option<String>,
}

/// A unit's state, without its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateName {
    /// Does not run, and is not wanted to.
    Stopped,
    /// Waits for the units it comes after.
    Waiting,
    /// Runs, and is not ready yet.
    Starting,
    /// Serves.
    Ready,
    /// Serves, and reads its configuration again.
    Reloading,
    /// Was asked to end.
    Stopping,
    /// Failed, and is started again later.
    Backoff,
}

impl StateName {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Reloading => "reloading",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
        }
    }
}

impl From<&State> for StateName {
    fn from(state: &State) -> Self {
        match state {
            State::Stopped => Self::Stopped,
            State::Waiting => Self::Waiting,
            State::Starting { .. } => Self::Starting,
            State::Ready { .. } => Self::Ready,
            State::Reloading { .. } => Self::Reloading,
            State::Stopping { .. } | State::Killing { .. } => Self::Stopping,
            State::Backoff { .. } => Self::Backoff,
        }
    }
}

impl UnitStatus {
    /// A unit that has not been started yet.
    pub(crate) fn new(specification: &Specification) -> Self {
        Self {
            name: specification.name.clone(),
            service: specification.service.clone(),
            state: StateName::Stopped,
            since: Timestamp::now(),
            pid: None,
            restarts: 0,
            starts: 0,
            address: specification.address,
            after: specification.after.clone(),
            says: None,
            reason: None,
        }
    }

    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, StateName::Ready | StateName::Reloading)
    }

    /// Takes over what the state machine knows.
    pub(crate) fn follow(&mut self, unit: &Unit) {
        let state = StateName::from(&unit.state);
        if state != self.state {
            self.since = Timestamp::now();
        }
        self.state = state;
        self.restarts = unit.restarts;
        self.reason.clone_from(&unit.reason);
    }
}

impl Board {
    /// The unit of this name.
    pub fn unit(&self, name: &str) -> Option<&UnitStatus> {
        self.units.iter().find(|unit| unit.name == name)
    }

    /// Whether an instance of this service or server serves.
    pub fn serves(&self, service: &str) -> bool {
        self.units.iter().any(|unit| unit.service == service && unit.is_ready())
    }

    /// Why a unit does not serve, in words: what it failed of, or what it waits for.
    pub fn trouble(&self, unit: &UnitStatus) -> Option<String> {
        match unit.state {
            StateName::Ready | StateName::Reloading => None,
            StateName::Waiting => {
                let missing: Vec<&str> =
                    unit.after.iter().map(String::as_str).filter(|service| !self.serves(service)).collect();
                (!missing.is_empty()).then(|| format!("waits for {}", missing.join(", ")))
            }
            _ => unit.reason.clone(),
        }
    }

    /// Whether everything was stopped.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Stopping && self.units.iter().all(|unit| unit.state == StateName::Stopped)
    }

    /// Whether everything serves.
    pub fn all_ready(&self) -> bool {
        self.phase == Phase::Running && self.units.iter().all(UnitStatus::is_ready)
    }

    /// Changes the unit of this name on a shared board; tells watchers only if something changed.
    pub(crate) fn update(board: &watch::Sender<Board>, name: &str, change: impl FnOnce(&mut UnitStatus)) {
        board.send_if_modified(|board| {
            let Some(unit) = board.units.iter_mut().find(|unit| unit.name == name) else { return false };
            let before = unit.clone();
            change(unit);
            *unit != before
        });
    }
}
