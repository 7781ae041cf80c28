//! What happens at the points of a process that was built with them.

use std::{
    env, fs,
    path::PathBuf,
    process,
    sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError},
    thread,
    time::Duration,
};

use database::Error;
use tokio::{pin, select, time::sleep};

use super::Point;

/// How often a paused point looks whether it may go on.
const LOOK: Duration = Duration::from_millis(10);

/// How long a future is under way before its point is passed: time to send something, not to get the answer of a disk.
const HEAD_START: Duration = Duration::from_millis(1);

/// What is to be done instead of going on at once.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Abort,
    Error,
    Pause,
    Sleep(Duration),
}

/// Failing where a test wants it.
#[derive(Debug, thiserror::Error)]
#[error("the failpoint {0} was to fail")]
struct Wanted(&'static str);

/// Does what is configured for the point.
///
/// # Errors
/// [`Error::Unavailable`], where an error is configured.
pub async fn pass(point: Point) -> Result<(), Error> {
    match wanted(point) {
        None => {}
        Some(Task::Abort) => abort(point),
        Some(Task::Error) => return Err(Error::Unavailable(Box::new(Wanted(point.0)))),
        Some(Task::Sleep(time)) => sleep(time).await,
        Some(Task::Pause) => {
            let paused = FILE.read();
            while FILE.read() == paused {
                sleep(LOOK).await;
            }
        }
    }
    Ok(())
}

/// Like [`pass`], for a function that is not asynchronous: it holds the thread, and an error is none.
pub fn pass_blocking(point: Point) {
    match wanted(point) {
        None | Some(Task::Error) => {}
        Some(Task::Abort) => abort(point),
        Some(Task::Sleep(time)) => thread::sleep(time),
        Some(Task::Pause) => {
            let paused = FILE.read();
            while FILE.read() == paused {
                thread::sleep(LOOK);
            }
        }
    }
}

/// Awaits a future, and passes the point a moment after it has begun.
///
/// # Errors
/// As [`pass`]; the future is given up then.
pub async fn pass_during<T>(point: Point, work: impl Future<Output = T>) -> Result<T, Error> {
    pin!(work);
    select! {
        done = &mut work => {
            pass(point).await?;
            Ok(done)
        }
        () = sleep(HEAD_START) => {
            pass(point).await?;
            Ok(work.await)
        }
    }
}

/// Ends the process, unless another one took the file first.
fn abort(point: Point) {
    if FILE.claim() {
        tracing::error!(failpoint = point.0, "aborting");
        process::abort();
    }
}

fn wanted(point: Point) -> Option<Task> {
    static VARIABLE: Once = Once::new();
    // Dropped, it would forget again what the variable says.
    VARIABLE.call_once(|| std::mem::forget(fail::FailScenario::setup()));
    FILE.take_up();
    let text = configured(point)?;
    tracing::warn!(failpoint = point.0, task = text, "passing");
    match text.split_once(' ') {
        None if text == "abort" => Some(Task::Abort),
        None if text == "error" => Some(Task::Error),
        None if text == "pause" => Some(Task::Pause),
        Some(("sleep", time)) => time.parse().ok().map(|time| Task::Sleep(Duration::from_millis(time))),
        _ => {
            tracing::error!(
                failpoint = point.0,
                task = text,
                "no such task: abort, error, pause, sleep <milliseconds>"
            );
            None
        }
    }
}

fn configured(point: Point) -> Option<String> {
    fail::fail_point!(point.0, |argument| Some(argument.unwrap_or_default()));
    None
}

static FILE: LazyLock<File> =
    LazyLock::new(|| File { path: env::var_os("FAILPOINTS_FILE").map(PathBuf::from), taken_up: Mutex::default() });

/// The file that `FAILPOINTS_FILE` names.
struct File {
    path: Option<PathBuf>,
    /// Its text, and which points it configured.
    taken_up: Mutex<(Option<String>, Vec<String>)>,
}

impl File {
    /// Its text, if it is there.
    fn read(&self) -> Option<String> {
        fs::read_to_string(self.path.as_ref()?).ok()
    }

    /// Takes up what it says, when it has changed.
    fn take_up(&self) {
        let text = self.read();
        let mut taken_up = self.taken_up();
        if taken_up.0 == text {
            return;
        }
        for point in taken_up.1.drain(..) {
            fail::remove(point);
        }
        for line in text.as_deref().unwrap_or_default().lines().filter(|line| !line.trim().is_empty()) {
            let (name, tasks) = line.split_once('=').unwrap_or((line, ""));
            match fail::cfg(name.trim(), tasks.trim()) {
                Ok(()) => taken_up.1.push(name.trim().to_owned()),
                Err(error) => tracing::error!(line, error, "a line of FAILPOINTS_FILE cannot be understood"),
            }
        }
        taken_up.0 = text;
    }

    /// Whether this process is the one that ends because of it; true without a file.
    fn claim(&self) -> bool {
        let Some(path) = self.path.as_ref().filter(|_| self.taken_up().0.is_some()) else { return true };
        let mut fired = path.clone().into_os_string();
        fired.push(".fired");
        fs::rename(path, fired).is_ok()
    }

    fn taken_up(&self) -> MutexGuard<'_, (Option<String>, Vec<String>)> {
        self.taken_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
