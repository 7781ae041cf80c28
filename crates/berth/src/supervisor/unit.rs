//! What a supervised unit does next: a pure state machine, after systemd's service units.
//!
//! [`Unit::decide`] takes what happened and says what to do about it. It starts no process, reads no clock and waits for
//! nothing: the time and the random part of a delay are handed in, and [`Unit::deadline`] says when it wants an
//! [`Event::Tick`]. The executor around it does what it says.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

/// How a unit says that it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It sends `READY=1` (systemd's `Type=notify`).
    Notify,
    /// Somebody asks it from outside until it answers. It is not told when it is reloaded, and says nothing.
    Probe,
    /// It is ready as soon as it runs (systemd's `Type=exec`).
    Exec,
}

/// When a unit that ended is started again (systemd's `Restart=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Unless it ended well: exit code 0, or one of the signals that ask a process to end.
    OnFailure,
    /// However it ended, unless it was stopped on purpose.
    Always,
}

/// How long to wait before starting again: from `first`, growing geometrically to `max` in `steps` steps (systemd's
/// `RestartSec=`, `RestartMaxDelaySec=`, `RestartSteps=`).
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Delay after the first failure.
    pub first: Duration,
    /// Delay that is never exceeded.
    pub max: Duration,
    /// Failures in a row after which the delay is `max`.
    pub steps: u32,
    /// A unit that was ready for this long has recovered: its next failure counts as the first.
    pub stable_after: Duration,
}

impl Backoff {
    /// The delay after the `failures`-th failure in a row. `chance`, from 0 to 1, shortens it by up to a quarter, so
    /// that units that failed together do not come back together.
    fn delay(&self, failures: u32, chance: f64) -> Duration {
        let done = f64::from(failures.saturating_sub(1).min(self.steps)) / f64::from(self.steps.max(1));
        let (first, max) = (self.first.as_secs_f64().max(0.001), self.max.as_secs_f64().max(0.001));
        let full = first * (max / first).powf(done);
        Duration::from_secs_f64(full.min(max) * (1.0 - 0.25 * chance.clamp(0.0, 1.0)))
    }
}

/// What was declared about a unit. It does not change while the unit lives.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How it becomes ready.
    pub readiness: Readiness,
    /// When it is started again.
    pub restart: Restart,
    /// How soon.
    pub backoff: Backoff,
    /// Time from start to ready; also for a reload.
    pub start_timeout: Duration,
    /// Time from the stop signal to SIGKILL.
    pub stop_timeout: Duration,
    /// The signal that asks it to end.
    pub stop_signal: Signal,
    /// Longest silence of a ready unit, if it is watched.
    pub watchdog: Option<Duration>,
    /// The most memory it may use, its children included, in bytes; none: as much as there is.
    pub memory: Option<u64>,
}

/// Where a unit stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does not run, and is not wanted to.
    Stopped,
    /// It is wanted, and waits for the units it comes after.
    Waiting,
    /// Its process runs and is not ready yet.
    Starting {
        /// When patience ends.
        until: Instant,
    },
    /// It serves.
    Ready {
        /// Since when.
        since: Instant,
    },
    /// It serves, and reads its configuration again.
    Reloading {
        /// When it became ready first.
        since: Instant,
        /// When patience ends.
        until: Instant,
    },
    /// It was asked to end.
    Stopping {
        /// When patience ends.
        until: Instant,
        /// What comes then.
        then: Then,
    },
    /// It got SIGKILL.
    Killing {
        /// What comes then.
        then: Then,
    },
    /// It failed and is started again later.
    Backoff {
        /// When.
        until: Instant,
    },
}

/// What follows the end of a process that is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing: somebody wanted it stopped.
    Stop,
    /// It is started at once: somebody wanted it restarted.
    Start,
    /// It counts as failed.
    Fail,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// What systemd calls a clean exit. A program that handles a signal itself cannot end by it, and says so by the code
    /// that shells give to such an end: a JVM that got SIGTERM exits with 143 (systemd: `SuccessExitStatus=143`).
    fn is_clean(self) -> bool {
        let clean = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE];
        match self {
            Exit::Code(code) => code == 0 || clean.iter().any(|s| 128 + *s as i32 == code),
            Exit::Signal(signal) => clean.iter().any(|s| *s as i32 == signal),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal(signal) => match Signal::try_from(*signal) {
                Ok(known) => write!(f, "ended by {known}"),
                Err(_) => write!(f, "ended by signal {signal}"),
            },
        }
    }
}

/// What can happen to a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants it to run.
    Start,
    /// Somebody wants it to end.
    Stop,
    /// Somebody wants it to end now.
    Kill,
    /// Somebody wants it to end and start again.
    Restart,
    /// Somebody wants it to read its configuration again.
    Reload,
    /// The units it comes after are all ready, or no longer are.
    Dependencies(bool),
    /// Its process runs.
    Spawned,
    /// Its process could not be started.
    SpawnFailed(String),
    /// It said `READY=1`, or answered the probe.
    Ready,
    /// It said `RELOADING=1`.
    Reloading,
    /// It said `WATCHDOG=1`.
    Alive,
    /// It said `WATCHDOG=trigger`: it asks to be treated as hung.
    Hung,
    /// It uses so much memory, in bytes.
    Uses(u64),
    /// It said `EXTEND_TIMEOUT_USEC=`.
    Extend(Duration),
    /// Its process ended.
    Exited(Exit),
    /// The deadline has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the process.
    Spawn,
    /// Send this signal to it. SIGKILL goes to its whole process group.
    Signal(Signal),
}

/// When something happens, and the random number that goes with it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub now: Instant,
    /// Evenly distributed from 0 to 1; spreads restarts.
    pub chance: f64,
}

/// A unit, as far as decisions depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Where it stands.
    pub state: State,
    /// Whether everything it comes after is ready.
    pub dependencies_ready: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Times it was started again without being asked.
    pub restarts: u64,
    /// Why it failed last, in words.
    pub reason: Option<String>,
    /// When it last gave a sign of life.
    alive: Option<Instant>,
}

impl Default for Unit {
    fn default() -> Self {
        Self { state: State::Stopped, dependencies_ready: false, failures: 0, restarts: 0, reason: None, alive: None }
    }
}

impl Unit {
    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. } | State::Reloading { .. })
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self, policy: &Policy) -> Option<Instant> {
        match self.state {
            State::Starting { until } | State::Stopping { until, .. } | State::Backoff { until } => Some(until),
            State::Ready { .. } => self.watchdog_deadline(policy),
            State::Reloading { until, .. } => [Some(until), self.watchdog_deadline(policy)].into_iter().flatten().min(),
            State::Stopped | State::Waiting | State::Killing { .. } => None,
        }
    }

    fn watchdog_deadline(&self, policy: &Policy) -> Option<Instant> {
        Some(self.alive? + policy.watchdog?)
    }

    /// What becomes of the unit, and what is to be done, when `event` happens.
    #[must_use]
    pub fn decide(mut self, policy: &Policy, at: Moment, event: &Event) -> (Self, Option<Action>) {
        let action = match event {
            Event::Start => self.start(policy, at),
            Event::Stop => self.stop(policy, at, Then::Stop),
            Event::Restart => self.restart(policy, at),
            Event::Kill => self.kill(),
            Event::Reload => self.reload(policy, at),
            Event::Dependencies(ready) => {
                self.dependencies_ready = *ready;
                self.spawn_when_possible(policy, at)
            }
            Event::Spawned if policy.readiness == Readiness::Exec => self.become_ready(at),
            Event::Spawned => None,
            Event::SpawnFailed(reason) if self.has_process() => self.fail(policy, at, reason.clone()),
            Event::SpawnFailed(_) => None,
            Event::Ready => self.become_ready(at),
            Event::Reloading => self.reloading(policy, at),
            Event::Alive => {
                self.alive = Some(at.now);
                None
            }
            Event::Hung if self.is_ready() => self.abort(policy, at, "asked for it by WATCHDOG=trigger".into()),
            Event::Hung => None,
            Event::Uses(memory) => self.bound(policy, *memory),
            Event::Extend(by) => self.extend(at.now + *by),
            Event::Exited(exit) => self.exited(policy, at, *exit),
            Event::Tick => self.tick(policy, at),
        };
        (self, action)
    }

    /// Whether a process belongs to the state it is in.
    fn has_process(&self) -> bool {
        !matches!(self.state, State::Stopped | State::Waiting | State::Backoff { .. })
    }

    fn start(&mut self, policy: &Policy, at: Moment) -> Option<Action> {
        match &mut self.state {
            State::Stopped | State::Backoff { .. } => {
                self.state = State::Waiting;
                self.spawn_when_possible(policy, at)
            }
            State::Stopping { then, .. } | State::Killing { then } => {
                *then = Then::Start;
                None
            }
            State::Waiting | State::Starting { .. } | State::Ready { .. } | State::Reloading { .. } => None,
        }
    }

    fn restart(&mut self, policy: &Policy, at: Moment) -> Option<Action> {
        self.failures = 0;
        match self.state {
            State::Starting { .. } | State::Ready { .. } | State::Reloading { .. } => {
                self.stop(policy, at, Then::Start)
            }
            _ => self.start(policy, at),
        }
    }

    fn stop(&mut self, policy: &Policy, at: Moment, next: Then) -> Option<Action> {
        match &mut self.state {
            State::Stopped | State::Waiting | State::Backoff { .. } => {
                self.state = State::Stopped;
                None
            }
            State::Stopping { then, .. } | State::Killing { then } => {
                *then = next;
                None
            }
            State::Starting { .. } | State::Ready { .. } | State::Reloading { .. } => {
                self.state = State::Stopping { until: at.now + policy.stop_timeout, then: next };
                Some(Action::Signal(policy.stop_signal))
            }
        }
    }

    fn kill(&mut self) -> Option<Action> {
        if !self.has_process() {
            self.state = State::Stopped;
            return None;
        }
        self.state = State::Killing { then: Then::Stop };
        Some(Action::Signal(Signal::SIGKILL))
    }

    fn reload(&mut self, policy: &Policy, at: Moment) -> Option<Action> {
        if !self.is_ready() {
            return None;
        }
        if policy.readiness == Readiness::Notify {
            let _ = self.reloading(policy, at);
        }
        Some(Action::Signal(Signal::SIGHUP))
    }

    fn reloading(&mut self, policy: &Policy, at: Moment) -> Option<Action> {
        if let State::Ready { since } | State::Reloading { since, .. } = self.state {
            self.state = State::Reloading { since, until: at.now + policy.start_timeout };
        }
        None
    }

    fn become_ready(&mut self, at: Moment) -> Option<Action> {
        match self.state {
            State::Starting { .. } => {
                self.alive = Some(at.now);
                self.state = State::Ready { since: at.now };
            }
            State::Reloading { since, .. } => self.state = State::Ready { since },
            _ => {}
        }
        None
    }

    fn extend(&mut self, to: Instant) -> Option<Action> {
        if let State::Starting { until } | State::Reloading { until, .. } | State::Stopping { until, .. } =
            &mut self.state
        {
            *until = (*until).max(to);
        }
        None
    }

    fn spawn_when_possible(&mut self, policy: &Policy, at: Moment) -> Option<Action> {
        if self.state != State::Waiting || !self.dependencies_ready {
            return None;
        }
        self.alive = None;
        self.state = State::Starting { until: at.now + policy.start_timeout };
        Some(Action::Spawn)
    }

    fn exited(&mut self, policy: &Policy, at: Moment, exit: Exit) -> Option<Action> {
        match self.state {
            State::Starting { .. } => self.fail(policy, at, format!("{exit} before it was ready")),
            State::Ready { since } | State::Reloading { since, .. } => {
                if at.now.duration_since(since) >= policy.backoff.stable_after {
                    self.failures = 0;
                }
                if policy.restart == Restart::OnFailure && exit.is_clean() {
                    self.state = State::Stopped;
                    self.reason = Some(format!("{exit} of its own accord"));
                    return None;
                }
                self.fail(policy, at, exit.to_string())
            }
            State::Stopping { then, .. } | State::Killing { then } => match then {
                Then::Stop => {
                    self.state = State::Stopped;
                    None
                }
                Then::Start => {
                    self.state = State::Waiting;
                    self.spawn_when_possible(policy, at)
                }
                Then::Fail => {
                    let reason = self.reason.take().unwrap_or_else(|| exit.to_string());
                    self.fail(policy, at, reason)
                }
            },
            State::Stopped | State::Waiting | State::Backoff { .. } => None,
        }
    }

    fn fail(&mut self, policy: &Policy, at: Moment, reason: String) -> Option<Action> {
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(reason);
        self.state = State::Backoff { until: at.now + policy.backoff.delay(self.failures, at.chance) };
        None
    }

    fn abort(&mut self, policy: &Policy, at: Moment, reason: String) -> Option<Action> {
        self.reason = Some(format!("watchdog: {reason}"));
        self.state = State::Stopping { until: at.now + policy.stop_timeout, then: Then::Fail };
        Some(Action::Signal(Signal::SIGABRT))
    }

    /// SIGKILL, as the kernel does with a cgroup that is full: who is asked to end needs more memory for that.
    fn bound(&mut self, policy: &Policy, used: u64) -> Option<Action> {
        let most = policy.memory.filter(|most| used > *most)?;
        if !matches!(self.state, State::Starting { .. } | State::Ready { .. } | State::Reloading { .. }) {
            return None;
        }
        self.reason = Some(format!("used {} MiB of memory, more than its {} MiB", used >> 20, most >> 20));
        self.state = State::Killing { then: Then::Fail };
        Some(Action::Signal(Signal::SIGKILL))
    }

    fn tick(&mut self, policy: &Policy, at: Moment) -> Option<Action> {
        if self.deadline(policy).is_none_or(|due| at.now < due) {
            return None;
        }
        match self.state {
            State::Starting { .. } => {
                self.reason = Some(format!("not ready after {:?}", policy.start_timeout));
                self.stop(policy, at, Then::Fail)
            }
            State::Ready { .. } | State::Reloading { .. }
                if self.watchdog_deadline(policy).is_some_and(|due| at.now >= due) =>
            {
                self.abort(policy, at, format!("silent for {:?}", policy.watchdog.unwrap_or_default()))
            }
            // A reload that is never confirmed: it serves on with what it had.
            State::Reloading { since, .. } => {
                self.reason = Some(format!("reload not confirmed after {:?}", policy.start_timeout));
                self.state = State::Ready { since };
                None
            }
            State::Stopping { then, .. } => {
                self.state = State::Killing { then };
                Some(Action::Signal(Signal::SIGKILL))
            }
            State::Backoff { .. } => {
                self.restarts = self.restarts.saturating_add(1);
                self.state = State::Waiting;
                self.spawn_when_possible(policy, at)
            }
            State::Ready { .. } | State::Stopped | State::Waiting | State::Killing { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
