//! Which addresses a service has, and which of them are up.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Config, Status, connect::Target, health, link::Link, metrics::ServiceMetrics};

/// What is known of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Being connected to for the first time, or again at once after its connection died.
    Connecting,
    /// Connected, and its last checks passed.
    Up,
    /// Neither.
    Down,
}

struct Entry {
    link: Arc<Link>,
    phase: Phase,
    stop: CancellationToken,
}

/// The addresses of one service.
pub(super) struct Roster {
    pub(super) config: Config,
    target: Target,
    metrics: ServiceMetrics,
    /// The links that are up: what requests choose from.
    live: ArcSwap<Vec<Arc<Link>>>,
    entries: Mutex<Vec<Entry>>,
    changes: watch::Sender<Status>,
}

impl Roster {
    pub(super) fn new(config: Config, metrics: ServiceMetrics) -> Self {
        Self {
            target: Target::new(&config.protocol),
            config,
            metrics,
            live: ArcSwap::default(),
            entries: Mutex::default(),
            changes: watch::Sender::default(),
        }
    }

    pub(super) fn live(&self) -> arc_swap::Guard<Arc<Vec<Arc<Link>>>> {
        self.live.load()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Status> {
        self.changes.subscribe()
    }

    /// Notes what is known of a link now. Says what was known before; nothing if it was removed meanwhile.
    pub(super) fn set_phase(&self, link: &Arc<Link>, phase: Phase) -> Option<Phase> {
        let mut entries = self.entries();
        let entry = entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.link, link))?;
        let before = std::mem::replace(&mut entry.phase, phase);
        if before != phase {
            self.gauge(before).dec();
            self.gauge(phase).inc();
            self.publish(&entries);
        }
        Some(before)
    }

    /// Keeps exactly these addresses: new ones are connected to, vanished ones finish what they have in flight.
    pub(super) fn keep(self: &Arc<Self>, addresses: &BTreeSet<SocketAddr>, stop: &CancellationToken) {
        let mut entries = self.entries();
        entries.retain(|entry| {
            let kept = addresses.contains(&entry.link.address);
            if !kept {
                entry.stop.cancel();
                self.gauge(entry.phase).dec();
                tracing::info!(upstream = self.config.service, address = %entry.link.address, "the address of an instance is gone");
            }
            kept
        });
        for address in addresses {
            if !entries.iter().any(|entry| entry.link.address == *address) {
                for _ in 0..self.links_per_address() {
                    let link = Arc::new(Link::new(*address, &self.config, &self.target));
                    let stop = stop.child_token();
                    tokio::spawn(health::keep(Arc::clone(self), Arc::clone(&link), stop.clone()));
                    self.gauge(Phase::Connecting).inc();
                    entries.push(Entry { link, phase: Phase::Connecting, stop });
                }
            }
        }
        self.publish(&entries);
    }

    /// Forgets all addresses.
    pub(super) fn clear(&self) {
        let mut entries = self.entries();
        for entry in entries.drain(..) {
            entry.stop.cancel();
            self.gauge(entry.phase).dec();
        }
        self.publish(&entries);
    }

    fn links_per_address(&self) -> usize {
        match self.target {
            Target::Mesh(_) => self.config.limits.connections.max(1),
            Target::Plain => 1,
        }
    }

    fn publish(&self, entries: &[Entry]) {
        let up = entries.iter().filter(|entry| entry.phase == Phase::Up);
        let live: Vec<_> = up.map(|entry| Arc::clone(&entry.link)).collect();
        let count = |phase| entries.iter().filter(|entry| entry.phase == phase).count();
        let status =
            Status { resolved: true, connecting: count(Phase::Connecting), up: live.len(), down: count(Phase::Down) };
        self.live.store(Arc::new(live));
        self.changes.send_replace(status);
    }

    fn gauge(&self, phase: Phase) -> &prometheus_client::metrics::gauge::Gauge {
        match phase {
            Phase::Connecting => &self.metrics.connecting,
            Phase::Up => &self.metrics.up,
            Phase::Down => &self.metrics.down,
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
