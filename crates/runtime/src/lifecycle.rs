//! A service from its start to its end: ready, reloading, draining.
//!
//! SIGTERM and SIGINT start the drain, a second one cuts it short; SIGHUP asks for a reload. The order of a drain:
//!
//! 1. [`Lifecycle::draining`] fires and the service manager hears `STOPPING=1`. `/readyz` turns 503, listeners close,
//!    connections are told to go away, background loops finish what they hold.
//! 2. [`Lifecycle::drained`] waits for every task tracked in [`Lifecycle::tasks`], at most the grace period.
//! 3. `main` returns.

use std::{fmt, future::Future, io, pin::pin, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::notify::Notifier;

/// How often the service manager hears that a start goes on, and how long it then waits for the next word.
const STARTING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// The state of this process between its start and its end. Clones are the same process.
#[derive(Clone, Debug)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    manager: Notifier,
    draining: CancellationToken,
    cut_short: CancellationToken,
    reloads: watch::Sender<u64>,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// Listens to signals and the watchdog from here on. Must be called within a tokio runtime, once per process.
    ///
    /// # Errors
    /// When a signal handler cannot be installed or `$NOTIFY_SOCKET` is no address.
    pub fn start() -> io::Result<Self> {
        let lifecycle = Self::with(Notifier::from_env()?);
        let signals = Signals::install()?;
        tokio::spawn(lifecycle.clone().obey(signals));
        if let Some(period) = sd_notify::watchdog_enabled() {
            tokio::spawn(lifecycle.clone().ping(period));
        }
        Ok(lifecycle)
    }

    /// A life without signals or a service manager, for tests and tools; [`drain`](Self::drain) ends it.
    pub fn detached() -> Self {
        Self::with(Notifier::nobody())
    }

    fn with(manager: Notifier) -> Self {
        Self(Arc::new(Inner {
            manager,
            draining: CancellationToken::new(),
            cut_short: CancellationToken::new(),
            reloads: watch::Sender::new(0),
            tasks: TaskTracker::new(),
        }))
    }

    /// Says that the service serves: after its start, and after each reload.
    pub fn ready(&self) {
        if !self.is_draining() {
            self.0.manager.send(&[NotifyState::Ready]);
        }
    }

    /// Does what must be done before the service is [`ready`](Self::ready), and may have to wait for another server first: the
    /// service manager hears that the start goes on, and does not end it for taking long.
    pub async fn prepare<T>(&self, preparation: impl Future<Output = T>) -> T {
        let mut preparation = pin!(preparation);
        let mut interval = tokio::time::interval(STARTING.0);
        loop {
            tokio::select! {
                biased;
                prepared = &mut preparation => return prepared,
                _ = interval.tick() => self.0.manager.send(&[NotifyState::ExtendTimeoutUsec(micros(STARTING.1))]),
            }
        }
    }

    /// Says that the configuration is being read again; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.0.manager.send(&[NotifyState::Reloading, now]),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told of the reload")
            }
        }
    }

    /// One line for a human, shown by `systemctl status` and `berth status`.
    pub fn status(&self, text: &str) {
        // A line end would start another assignment of the protocol.
        self.0.manager.send(&[NotifyState::Status(&text.replace(['\n', '\r'], " "))]);
    }

    /// Fires when the drain begins.
    pub fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Counts the requests to reload. Each change is one, or several that came together.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.0.reloads.subscribe()
    }

    /// Reads again what was read at the start, whenever that is asked for, until the drain. `parts` does it, and gives an error for
    /// each part that is not usable: that part stays as it was.
    pub async fn reload_by<E: fmt::Display>(&self, parts: impl Fn() -> Vec<Result<(), E>>) {
        let mut reloads = self.reloads();
        while let Some(Ok(())) = self.0.draining.run_until_cancelled(reloads.changed()).await {
            self.reloading();
            for error in parts().into_iter().filter_map(Result::err) {
                tracing::error!(%error, "a credential was not reloaded; the old one stays");
            }
            self.ready();
        }
    }

    /// The tasks that a drain waits for.
    pub fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// Begins the drain, as SIGTERM does. A second call changes nothing.
    pub fn drain(&self) {
        if !self.is_draining() {
            self.0.manager.send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
            self.0.draining.cancel();
        }
    }

    /// Waits until the drain begins, then until all tracked tasks have ended, at most `grace` and not beyond a second
    /// signal. What is left then ends with the runtime.
    pub async fn drained(&self, grace: Duration) {
        self.0.draining.cancelled().await;
        self.0.tasks.close();
        tokio::select! {
            () = self.0.tasks.wait() => tracing::info!("drained"),
            () = tokio::time::sleep(grace) => {
                tracing::warn!(unfinished = self.0.tasks.len(), grace_seconds = grace.as_secs_f64(), "the grace period is over");
            }
            () = self.0.cut_short.cancelled() => {
                tracing::warn!(unfinished = self.0.tasks.len(), "told to stop a second time");
            }
        }
    }

    async fn obey(self, mut signals: Signals) {
        loop {
            match signals.next().await {
                Request::Reload => self.0.reloads.send_modify(|count| *count += 1),
                Request::Stop if self.is_draining() => self.0.cut_short.cancel(),
                Request::Stop => {
                    tracing::info!("told to stop");
                    self.drain();
                }
            }
        }
    }

    /// Pings at half the period, as sd_watchdog_enabled(3) recommends. A runtime that hangs stops pinging.
    async fn ping(self, period: Duration) {
        let mut interval = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.0.manager.send(&[NotifyState::Watchdog]);
        }
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

enum Request {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.hangup.recv() => Request::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn watched() -> (tempfile::TempDir, UnixDatagram, Lifecycle) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let lifecycle = Lifecycle::with(Notifier::to(Some(path.into())).unwrap());
        (folder, manager, lifecycle)
    }

    fn receive(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_life_is_told_to_the_service_manager_in_order() {
        let (_folder, manager, lifecycle) = watched();
        lifecycle.ready();
        assert_eq!(receive(&manager), "READY=1\n");
        lifecycle.status("two\nlines");
        assert_eq!(receive(&manager), "STATUS=two lines\n");
        lifecycle.reloading();
        let reloading = receive(&manager);
        let (first, second) = reloading.split_once('\n').unwrap();
        assert_eq!(first, "RELOADING=1");
        let microseconds: u64 = second.trim_end().strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(microseconds > 0);
        lifecycle.ready();
        assert_eq!(receive(&manager), "READY=1\n");
        lifecycle.drain();
        lifecycle.drain();
        lifecycle.ready();
        assert_eq!(receive(&manager), "STOPPING=1\nSTATUS=draining\n");
        manager.set_nonblocking(true).unwrap();
        assert!(manager.recv(&mut [0; 16]).is_err(), "after STOPPING=1 nothing more is said");
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_takes_long_is_not_cut_short() {
        let (_folder, manager, lifecycle) = watched();
        lifecycle.prepare(tokio::time::sleep(Duration::from_secs(25))).await;
        manager.set_nonblocking(true).unwrap();
        for second in [0, 10, 20] {
            assert_eq!(receive(&manager), "EXTEND_TIMEOUT_USEC=60000000\n", "after {second} s");
        }
        assert!(manager.recv(&mut [0; 16]).is_err(), "the start is over");
    }

    #[tokio::test]
    async fn a_drain_waits_for_its_tasks() {
        let lifecycle = Lifecycle::detached();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let draining = lifecycle.draining();
        let task = lifecycle.tasks().spawn(async move {
            draining.cancelled().await;
            finished.await.unwrap();
            "done"
        });
        lifecycle.drain();
        let waiting = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.drained(Duration::from_secs(3600)).await }
        });
        finish.send(()).unwrap();
        waiting.await.unwrap();
        assert_eq!(task.await.unwrap(), "done");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_ends_is_left_after_the_grace_period() {
        let lifecycle = Lifecycle::detached();
        lifecycle.tasks().spawn(std::future::pending::<()>());
        lifecycle.drain();
        lifecycle.drained(Duration::from_secs(30)).await;
        assert_eq!(lifecycle.tasks().len(), 1);
    }

    #[tokio::test]
    async fn a_second_signal_cuts_the_drain_short() {
        let lifecycle = Lifecycle::detached();
        lifecycle.tasks().spawn(std::future::pending::<()>());
        lifecycle.drain();
        lifecycle.0.cut_short.cancel();
        lifecycle.drained(Duration::from_secs(3600)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_at_half_its_period() {
        let (_folder, manager, lifecycle) = watched();
        let start = tokio::time::Instant::now();
        let feeding = tokio::spawn(lifecycle.ping(Duration::from_secs(10)));
        tokio::time::sleep_until(start + Duration::from_secs(21)).await;
        feeding.abort();
        manager.set_nonblocking(true).unwrap();
        let mut pings = 0;
        while manager.recv(&mut [0; 64]).is_ok() {
            pings += 1;
        }
        assert_eq!(pings, 5, "at 0, 5, 10, 15 and 20 seconds");
    }
}
