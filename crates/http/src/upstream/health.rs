//! The task that keeps one link up: connects, checks, and connects again when the connection is lost.

use std::{sync::Arc, time::Duration};

use http::Request;
use http_body_util::{BodyExt as _, Limited};
use runtime::retry::Backoff;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::BoxError;
use super::{
    HealthCheck, Payload, connect,
    link::{Link, Transport},
    roster::{Phase, Roster},
};

/// The longest wait after the first connection that could not be made; doubled each time, up to the interval of the checks.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The largest answer to a health check that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// A link that is not up is checked so much more often: whoever has just become ready is wanted soon.
const EAGERNESS: u32 = 4;

/// Keeps the link up until `stop`.
pub(super) async fn keep(roster: Arc<Roster>, link: Arc<Link>, stop: CancellationToken) {
    let judge = Judge::new(&roster.config.health);
    let supervisor = Supervisor { roster: &roster, link: &link, judge, up_since: None };
    tokio::select! {
        () = stop.cancelled() => {}
        () = supervisor.run() => {}
    }
    link.close();
}

/// Rise and fall: what the checks so far amount to.
#[derive(Clone, Copy, Debug)]
struct Judge {
    rise: u32,
    fall: u32,
    verdict: Verdict,
    /// Checks in a row that speak against the verdict.
    against: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing is known: the first check decides.
    Open,
    Up,
    Down,
}

impl Judge {
    fn new(health: &HealthCheck) -> Self {
        Self { rise: health.rise.max(1), fall: health.fall.max(1), verdict: Verdict::Open, against: 0 }
    }

    fn hear(&mut self, passed: bool) -> Verdict {
        let spoken = if passed { Verdict::Up } else { Verdict::Down };
        if spoken == self.verdict {
            self.against = 0;
            return spoken;
        }
        self.against += 1;
        let needed = match self.verdict {
            Verdict::Open => 1,
            Verdict::Up => self.fall,
            Verdict::Down => self.rise,
        };
        if self.against >= needed {
            (self.verdict, self.against) = (spoken, 0);
        }
        self.verdict
    }

    /// The process behind the address is gone, or another one by now.
    fn forget(&mut self) {
        (self.verdict, self.against) = (Verdict::Open, 0);
    }
}

/// Why a check did not pass.
enum Unfit {
    /// It said so.
    Says(BoxError),
    /// It said nothing.
    Silent,
    /// There is nobody.
    Gone(BoxError),
}

struct Supervisor<'a> {
    roster: &'a Arc<Roster>,
    link: &'a Arc<Link>,
    judge: Judge,
    up_since: Option<Instant>,
}

impl Supervisor<'_> {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, self.health().interval);
        loop {
            let error = match &self.link.transport {
                Transport::Http2 { .. } => self.one_connection().await,
                Transport::Http1 { .. } => self.many_connections().await,
            };
            // Whoever held out for a while is worth trying again at once, but not whoever comes and goes.
            let interval = self.health().interval;
            if self.up_since.take().is_some_and(|since| since.elapsed() > interval) {
                backoff.reset();
                self.note(Phase::Connecting, Some(&error));
            } else {
                self.note(Phase::Down, Some(&error));
                sleep(backoff.delay()).await;
            }
        }
    }

    /// The life of one HTTP/2 connection. Says how it ended.
    async fn one_connection(&mut self) -> BoxError {
        let Transport::Http2 { workload, sender } = &self.link.transport else { return "not HTTP/2".into() };
        let limits = &self.roster.config.limits;
        let connecting = workload.connect(self.link.address, limits.max_in_flight);
        let (connected, connection) = match timeout(limits.connect_timeout, connecting).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => {
                self.judge.forget();
                return error;
            }
            Err(_) => return format!("no connection within {:?}", limits.connect_timeout).into(),
        };
        sender.store(Some(Arc::new(connected)));
        let (roster, link) = (Arc::clone(self.roster), Arc::clone(self.link));
        // Not aborted when we are stopped: what is in flight then is finished.
        let mut driver = tokio::spawn(async move {
            let ended = connection.await;
            // Here and not in the supervisor: no request is to be sent this way any more, from this moment on.
            roster.set_phase(&link, Phase::Connecting);
            ended
        });
        let ended = loop {
            let pause = tokio::select! {
                biased;
                ended = &mut driver => break ended,
                checked = self.check() => match self.weigh(checked) {
                    Ok(pause) => pause,
                    Err(error) => {
                        driver.abort();
                        sender.store(None);
                        return error;
                    }
                },
            };
            tokio::select! {
                biased;
                ended = &mut driver => break ended,
                () = self.link.doubted.notified() => {}
                () = sleep(pause) => {}
            }
        };
        sender.store(None);
        if self.judge.verdict == Verdict::Up {
            self.judge.forget();
        }
        match ended {
            Ok(Err(error)) => error.into(),
            _ => "the connection was closed".into(),
        }
    }

    /// HTTP/1.1: connections come and go with the requests, so that only the checks tell.
    async fn many_connections(&mut self) -> BoxError {
        loop {
            let checked = self.check().await;
            match self.weigh(checked) {
                Ok(pause) => tokio::select! {
                    () = self.link.doubted.notified() => {}
                    () = sleep(pause) => {}
                },
                Err(error) => return error,
            }
        }
    }

    /// Draws the conclusion from a check: the pause before the next one, or why this connection is of no use any more.
    fn weigh(&mut self, checked: Result<Duration, Unfit>) -> Result<Duration, BoxError> {
        let interval = self.health().interval;
        let before = self.judge.verdict;
        let (verdict, reason) = match checked {
            Ok(latency) => {
                let verdict = self.judge.hear(true);
                if verdict == Verdict::Up && before != Verdict::Up {
                    self.link.latency.restart(latency);
                    self.up_since = Some(Instant::now());
                }
                (verdict, None)
            }
            Err(Unfit::Gone(error)) => {
                self.judge.forget();
                return Err(error);
            }
            Err(Unfit::Silent) => {
                let verdict = self.judge.hear(false);
                if verdict == Verdict::Down {
                    // Perhaps only the connection is dead, and its end never arrived.
                    return Err(format!("no answer to the health check within {:?}", self.health().timeout).into());
                }
                (verdict, None)
            }
            Err(Unfit::Says(error)) => (self.judge.hear(false), Some(error)),
        };
        if verdict == Verdict::Up {
            self.note(Phase::Up, None);
            Ok(jittered(interval))
        } else {
            self.note(Phase::Down, reason.as_ref());
            Ok(jittered(interval / EAGERNESS))
        }
    }

    async fn check(&self) -> Result<Duration, Unfit> {
        let started = Instant::now();
        let asking = async {
            match &self.health().path {
                Some(path) => self.ask(Request::get(path.clone())).await,
                None => self.knock().await,
            }
        };
        match timeout(self.health().timeout, asking).await {
            Ok(Ok(())) => Ok(started.elapsed()),
            Ok(Err(unfit)) => Err(unfit),
            Err(_) => Err(Unfit::Silent),
        }
    }

    async fn ask(&self, request: http::request::Builder) -> Result<(), Unfit> {
        let request = request.body(Payload::empty()).map_err(|error| Unfit::Says(error.into()))?;
        let (response, http1) = self.link.send(request).await.map_err(|failure| {
            if failure.doubtful { Unfit::Gone(failure.error) } else { Unfit::Says(failure.error) }
        })?;
        let status = response.status();
        Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(Unfit::Says)?;
        if let Some(http1) = http1 {
            self.link.check_in(http1);
        }
        if status.is_success() {
            Ok(())
        } else {
            Err(Unfit::Says(format!("the health check was answered with {status}").into()))
        }
    }

    /// Without a path: an HTTP/2 connection is proof enough while it lives, for HTTP/1.1 a new one must be possible.
    async fn knock(&self) -> Result<(), Unfit> {
        match self.link.transport {
            Transport::Http2 { .. } => Ok(()),
            Transport::Http1 { .. } => connect::tcp(self.link.address).await.map(drop).map_err(Unfit::Gone),
        }
    }

    /// Notes the phase, and tells of it when it has changed.
    fn note(&self, phase: Phase, reason: Option<&BoxError>) {
        let (upstream, address) = (&self.roster.config.service, self.link.address);
        let Some(before) = self.roster.set_phase(self.link, phase) else { return };
        match (before, phase) {
            (Phase::Up, Phase::Up) => {}
            (_, Phase::Up) => tracing::info!(upstream, %address, "an instance takes requests"),
            (Phase::Down, _) => {}
            (_, Phase::Connecting | Phase::Down) => {
                let reason = reason.map_or_else(String::new, ToString::to_string);
                tracing::info!(upstream, %address, reason, "an instance takes no requests");
            }
        }
    }

    fn health(&self) -> &HealthCheck {
        &self.roster.config.health
    }
}

/// A tenth more or less, so that many of us do not ask at the same moment.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.9..=1.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(rise: u32, fall: u32) -> Judge {
        Judge::new(&HealthCheck { rise, fall, ..HealthCheck::default() })
    }

    #[test]
    fn the_first_check_decides_and_later_ones_must_agree() {
        use Verdict::{Down, Up};
        for (rise, fall, checks, verdicts) in [
            (2, 2, "+", vec![Up]),
            (2, 2, "-", vec![Down]),
            (2, 2, "+-+-", vec![Up, Up, Up, Up]),
            (2, 2, "+--", vec![Up, Up, Down]),
            (2, 3, "+--+---", vec![Up, Up, Up, Up, Up, Up, Down]),
            (2, 2, "-+-+", vec![Down, Down, Down, Down]),
            (3, 1, "-+++-", vec![Down, Down, Down, Up, Down]),
            (0, 0, "+-+", vec![Up, Down, Up]),
        ] {
            let mut judge = judge(rise, fall);
            let heard: Vec<_> = checks.chars().map(|check| judge.hear(check == '+')).collect();
            assert_eq!(heard, verdicts, "rise {rise}, fall {fall}: {checks}");
        }
    }

    #[test]
    fn a_new_process_begins_anew() {
        let mut judge = judge(3, 1);
        judge.hear(false);
        judge.forget();
        assert_eq!(judge.hear(true), Verdict::Up);
    }
}
