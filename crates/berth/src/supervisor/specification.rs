//! What is to be run as one unit: the counterpart of a systemd unit file.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use nix::sys::signal::Signal;
use servers::Account;

use super::{
    probe::Probe,
    unit::{Policy, Readiness},
};

/// One unit.
#[derive(Debug, Clone)]
pub struct Specification {
    /// Its name, unique in the mesh.
    pub name: String,
    /// What it is an instance of; its own name for a server.
    pub service: String,
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments; never a secret.
    pub args: Vec<OsString>,
    /// Its whole environment, but for what the supervisor adds (`NOTIFY_SOCKET` and the like); never a secret.
    pub environment: BTreeMap<String, OsString>,
    /// Its working folder.
    pub folder: PathBuf,
    /// Who runs it; `None` is whoever runs the supervisor.
    pub account: Option<Account>,
    /// What it gets when the supervisor dies.
    pub death_signal: Signal,
    /// Sockets it is handed (`LISTEN_FDS`), by name. They outlive its processes.
    pub sockets: Vec<(String, Arc<TcpListener>)>,
    /// How it is asked whether it serves; only with [`Readiness::Probe`].
    pub probe: Option<Probe>,
    /// How it is supervised.
    pub policy: Policy,
    /// Services and servers of which one instance must be ready before it starts, and that stop after it.
    pub after: Vec<String>,
    /// Where it listens, for people.
    pub address: Option<SocketAddr>,
}

impl Specification {
    pub(crate) fn notifies(&self) -> bool {
        self.policy.readiness == Readiness::Notify
    }
}
