use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy(readiness: Readiness, restart: Restart) -> Policy {
    Policy {
        readiness,
        restart,
        backoff: Backoff { first: SECOND, max: 16 * SECOND, steps: 4, stable_after: 60 * SECOND },
        start_timeout: 30 * SECOND,
        stop_timeout: 10 * SECOND,
        stop_signal: Signal::SIGTERM,
        watchdog: Some(5 * SECOND),
        memory: Some(64 << 20),
    }
}

/// A unit with its policy and a clock of its own.
struct Bench {
    policy: Policy,
    unit: Unit,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(policy(Readiness::Notify, Restart::OnFailure))
    }

    fn with(policy: Policy) -> Self {
        Self { policy, unit: Unit::default(), now: Instant::now() }
    }

    fn ready() -> Self {
        let mut bench = Self::new();
        bench.is_told(&Event::Dependencies(true));
        assert_eq!(bench.is_told(&Event::Start), Some(Action::Spawn));
        bench.is_told(&Event::Spawned);
        bench.is_told(&Event::Ready);
        assert!(bench.unit.is_ready());
        bench
    }

    fn is_told(&mut self, event: &Event) -> Option<Action> {
        let unit = std::mem::take(&mut self.unit);
        let (unit, action) = unit.decide(&self.policy, Moment { now: self.now, chance: 0.0 }, event);
        self.unit = unit;
        action
    }

    fn after(&mut self, time: Duration) -> Option<Action> {
        self.now += time;
        self.is_told(&Event::Tick)
    }

    /// Lets time pass until something is due.
    fn at_deadline(&mut self) -> Option<Action> {
        self.now = self.unit.deadline(&self.policy).unwrap();
        self.is_told(&Event::Tick)
    }

    fn backoff(&self) -> Duration {
        match self.unit.state {
            State::Backoff { until } => until - self.now,
            ref other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_unit_waits_for_what_it_comes_after_and_then_for_ready() {
    let mut bench = Bench::new();
    assert_eq!(bench.is_told(&Event::Start), None);
    assert_eq!(bench.unit.state, State::Waiting);
    assert_eq!(bench.is_told(&Event::Dependencies(true)), Some(Action::Spawn));
    assert_eq!(bench.is_told(&Event::Spawned), None);
    assert!(!bench.unit.is_ready());
    bench.is_told(&Event::Ready);
    assert!(bench.unit.is_ready());
    // Once it runs, what it comes after may go and come.
    assert_eq!(bench.is_told(&Event::Dependencies(false)), None);
    assert!(bench.unit.is_ready());
}

#[test]
fn an_exec_unit_is_ready_when_it_runs() {
    let mut bench = Bench::with(policy(Readiness::Exec, Restart::Always));
    bench.is_told(&Event::Dependencies(true));
    bench.is_told(&Event::Start);
    bench.is_told(&Event::Spawned);
    assert!(bench.unit.is_ready());
}

#[test]
fn how_it_ends_decides_whether_it_starts_again() {
    let term = Signal::SIGTERM as i32;
    let kill = Signal::SIGKILL as i32;
    for (restart, exit, again) in [
        (Restart::OnFailure, Exit::Code(0), false),
        (Restart::OnFailure, Exit::Signal(term), false),
        (Restart::OnFailure, Exit::Code(128 + term), false),
        (Restart::OnFailure, Exit::Code(1), true),
        (Restart::OnFailure, Exit::Code(128 + kill), true),
        (Restart::OnFailure, Exit::Signal(kill), true),
        (Restart::Always, Exit::Code(0), true),
        (Restart::Always, Exit::Signal(term), true),
        (Restart::Always, Exit::Signal(kill), true),
    ] {
        let mut bench = Bench::ready();
        bench.policy.restart = restart;
        bench.is_told(&Event::Exited(exit));
        assert_eq!(matches!(bench.unit.state, State::Backoff { .. }), again, "{restart:?} {exit}");
        assert_eq!(bench.unit.state == State::Stopped, !again, "{restart:?} {exit}");
    }
}

#[test]
fn an_end_before_ready_is_a_failure_even_with_code_0() {
    let mut bench = Bench::new();
    bench.is_told(&Event::Dependencies(true));
    bench.is_told(&Event::Start);
    bench.is_told(&Event::Exited(Exit::Code(0)));
    assert!(matches!(bench.unit.state, State::Backoff { .. }));
    assert!(bench.unit.reason.as_ref().unwrap().contains("before it was ready"));
}

#[test]
fn a_crash_loop_backs_off_up_to_the_maximum_and_stability_forgives() {
    let mut bench = Bench::ready();
    let mut delays = Vec::new();
    for _ in 0..6 {
        bench.is_told(&Event::Exited(Exit::Code(1)));
        delays.push(bench.backoff().as_secs());
        assert_eq!(bench.at_deadline(), Some(Action::Spawn));
        bench.is_told(&Event::Ready);
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 16]);
    assert_eq!(bench.unit.restarts, 6);
    // Ready for less than it takes: still the same trouble.
    bench.now += 59 * SECOND;
    bench.is_told(&Event::Exited(Exit::Code(1)));
    assert_eq!(bench.backoff(), 16 * SECOND);
    bench.at_deadline();
    bench.is_told(&Event::Ready);
    bench.now += 60 * SECOND;
    bench.is_told(&Event::Exited(Exit::Code(1)));
    assert_eq!(bench.backoff(), SECOND);
}

#[test]
fn chance_shortens_a_delay_by_a_quarter_at_most() {
    let backoff = policy(Readiness::Notify, Restart::Always).backoff;
    assert_eq!(backoff.delay(3, 0.0), 4 * SECOND);
    assert_eq!(backoff.delay(3, 1.0), 3 * SECOND);
    assert_eq!(backoff.delay(u32::MAX, 0.0), 16 * SECOND);
}

#[test]
fn a_failed_unit_waits_again_for_what_it_comes_after() {
    let mut bench = Bench::ready();
    bench.is_told(&Event::Dependencies(false));
    bench.is_told(&Event::Exited(Exit::Code(1)));
    assert_eq!(bench.at_deadline(), None);
    assert_eq!(bench.unit.state, State::Waiting);
    assert_eq!(bench.is_told(&Event::Dependencies(true)), Some(Action::Spawn));
}

#[test]
fn one_that_never_gets_ready_is_stopped_killed_and_started_again() {
    let mut bench = Bench::new();
    bench.is_told(&Event::Dependencies(true));
    bench.is_told(&Event::Start);
    assert_eq!(bench.after(29 * SECOND), None);
    assert_eq!(bench.after(SECOND), Some(Action::Signal(Signal::SIGTERM)));
    assert_eq!(bench.after(10 * SECOND), Some(Action::Signal(Signal::SIGKILL)));
    bench.is_told(&Event::Exited(Exit::Signal(9)));
    assert!(bench.unit.reason.as_ref().unwrap().contains("not ready after 30s"));
    assert_eq!(bench.at_deadline(), Some(Action::Spawn));
}

#[test]
fn silence_of_a_watched_unit_is_answered_with_sigabrt() {
    let mut bench = Bench::ready();
    for _ in 0..3 {
        assert_eq!(bench.after(4 * SECOND), None);
        bench.is_told(&Event::Alive);
    }
    assert_eq!(bench.after(5 * SECOND), Some(Action::Signal(Signal::SIGABRT)));
    assert_eq!(bench.after(10 * SECOND), Some(Action::Signal(Signal::SIGKILL)));
    bench.is_told(&Event::Exited(Exit::Signal(9)));
    assert!(bench.unit.reason.as_ref().unwrap().starts_with("watchdog"));
    assert!(matches!(bench.unit.state, State::Backoff { .. }));
    let mut bench = Bench::ready();
    assert_eq!(bench.is_told(&Event::Hung), Some(Action::Signal(Signal::SIGABRT)));
}

#[test]
fn one_that_uses_more_memory_than_it_may_is_killed_and_started_again() {
    let mut bench = Bench::ready();
    assert_eq!(bench.is_told(&Event::Uses(64 << 20)), None);
    assert_eq!(bench.is_told(&Event::Uses(65 << 20)), Some(Action::Signal(Signal::SIGKILL)));
    bench.is_told(&Event::Exited(Exit::Signal(9)));
    assert_eq!(bench.unit.reason.as_deref(), Some("used 65 MiB of memory, more than its 64 MiB"));
    assert_eq!(bench.at_deadline(), Some(Action::Spawn));
    bench.policy.memory = None;
    assert_eq!(bench.is_told(&Event::Uses(u64::MAX)), None);
}

#[test]
fn stopping_is_asked_for_then_forced_and_final() {
    let mut bench = Bench::ready();
    assert_eq!(bench.is_told(&Event::Stop), Some(Action::Signal(Signal::SIGTERM)));
    assert_eq!(bench.is_told(&Event::Stop), None);
    bench.is_told(&Event::Extend(20 * SECOND));
    assert_eq!(bench.after(19 * SECOND), None);
    assert_eq!(bench.after(SECOND), Some(Action::Signal(Signal::SIGKILL)));
    bench.is_told(&Event::Exited(Exit::Signal(9)));
    assert_eq!(bench.unit.state, State::Stopped);
    assert_eq!(bench.unit.restarts, 0);
}

#[test]
fn a_unit_in_backoff_is_stopped_or_restarted_at_once() {
    let mut bench = Bench::ready();
    bench.is_told(&Event::Exited(Exit::Code(1)));
    assert_eq!(bench.is_told(&Event::Restart), Some(Action::Spawn));
    bench.is_told(&Event::Exited(Exit::Code(1)));
    assert_eq!(bench.backoff(), SECOND, "a restart begins to count anew");
    assert_eq!(bench.is_told(&Event::Stop), None);
    assert_eq!(bench.unit.state, State::Stopped);
}

#[test]
fn a_restart_stops_and_starts_without_delay() {
    let mut bench = Bench::ready();
    assert_eq!(bench.is_told(&Event::Restart), Some(Action::Signal(Signal::SIGTERM)));
    assert_eq!(bench.is_told(&Event::Exited(Exit::Code(0))), Some(Action::Spawn));
    assert_eq!(bench.unit.restarts, 0);
}

#[test]
fn a_reload_is_confirmed_or_given_up_and_serves_all_along() {
    let mut bench = Bench::ready();
    bench.policy.watchdog = None;
    assert_eq!(bench.is_told(&Event::Reload), Some(Action::Signal(Signal::SIGHUP)));
    assert!(matches!(bench.unit.state, State::Reloading { .. }) && bench.unit.is_ready());
    bench.is_told(&Event::Ready);
    assert!(matches!(bench.unit.state, State::Ready { .. }));
    bench.is_told(&Event::Reload);
    assert_eq!(bench.after(30 * SECOND), None);
    assert!(matches!(bench.unit.state, State::Ready { .. }));
    assert!(bench.unit.reason.as_ref().unwrap().contains("reload not confirmed"));
}

#[test]
fn a_program_that_is_missing_is_tried_again_later() {
    let mut bench = Bench::new();
    bench.is_told(&Event::Dependencies(true));
    bench.is_told(&Event::Start);
    bench.is_told(&Event::SpawnFailed("no such file".into()));
    assert_eq!(bench.backoff(), SECOND);
    assert_eq!(bench.unit.reason.as_deref(), Some("no such file"));
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Start),
        Just(Event::Stop),
        Just(Event::Kill),
        Just(Event::Restart),
        Just(Event::Reload),
        any::<bool>().prop_map(Event::Dependencies),
        Just(Event::Ready),
        Just(Event::Reloading),
        Just(Event::Alive),
        Just(Event::Hung),
        (0u64..20).prop_map(|seconds| Event::Extend(Duration::from_secs(seconds))),
        Just(Event::SpawnFailed("no".into())),
        (0i32..3).prop_map(|code| Event::Exited(Exit::Code(code))),
        Just(Event::Exited(Exit::Signal(9))),
        Just(Event::Uses(1 << 30)),
        Just(Event::Tick),
    ]
}

proptest! {
    /// Whatever happens in whatever order: never two processes, no signal to none, and no state that nothing ends.
    #[test]
    fn no_order_of_events_breaks_a_unit(steps in prop::collection::vec((events(), 0u64..40), 1..200)) {
        let mut bench = Bench::new();
        let mut alive = false;
        for (event, seconds) in steps {
            bench.now += Duration::from_secs(seconds);
            // What only a process can cause does not happen without one.
            let needs_process = matches!(event, Event::Exited(_) | Event::SpawnFailed(_) | Event::Ready | Event::Hung);
            if needs_process && !alive {
                continue;
            }
            alive &= !matches!(event, Event::Exited(_) | Event::SpawnFailed(_));
            match bench.is_told(&event) {
                Some(Action::Spawn) => {
                    prop_assert!(!alive, "a second process after {event:?}");
                    alive = true;
                }
                Some(Action::Signal(signal)) => prop_assert!(alive, "{signal} to nobody after {event:?}"),
                None => {}
            }
            prop_assert_eq!(alive, bench.unit.has_process(), "after {:?}: {:?}", event, bench.unit);
            let waits = matches!(bench.unit.state, State::Stopped | State::Waiting | State::Killing { .. });
            prop_assert_eq!(bench.unit.deadline(&bench.policy).is_none(), waits, "{:?}", bench.unit);
        }
        bench.is_told(&Event::Kill);
        bench.is_told(&Event::Exited(Exit::Signal(9)));
        prop_assert_eq!(bench.unit.state, State::Stopped);
    }
}
