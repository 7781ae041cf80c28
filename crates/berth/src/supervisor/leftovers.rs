//! Which processes a supervisor has started, written down, so that the next one can tell what a killed one left behind.
//!
//! A process is known by its id together with its start time, so that a reused id is never mistaken for it; whatever it
//! started is known by the `INVOCATION_ID` it inherited. Never by a name.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procfs::process::Process;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// One process that was started.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Record {
    /// Process id; also that of its process group.
    pub pid: i32,
    /// When it started, in clock ticks since the machine did.
    pub start_time: u64,
    /// Its `INVOCATION_ID`.
    pub invocation: String,
}

/// What a daemon has from SIGTERM to SIGKILL when the unit it belongs to has ended.
const HEIRS_PATIENCE: Duration = Duration::from_secs(1);
/// From one look at what still lives to the next.
const LOOK: Duration = Duration::from_millis(10);

impl Record {
    /// Describes a process that was just started.
    ///
    /// # Errors
    /// It is gone already.
    pub fn of(pid: i32, invocation: &str) -> io::Result<Self> {
        let start_time = start_time(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, start_time, invocation: invocation.to_owned() })
    }

    /// The processes of this record that still live.
    fn living(&self) -> Vec<i32> {
        let leader = (start_time(self.pid) == Some(self.start_time)).then_some(self.pid);
        let heirs = heirs(&self.invocation).into_iter().filter(|pid| *pid != self.pid);
        leader.into_iter().chain(heirs).collect()
    }
}

/// The living processes that inherited this `INVOCATION_ID`, whatever session or group they moved to. A zombie has no
/// environment any more, so that it is none of them.
fn heirs(invocation: &str) -> Vec<i32> {
    let inherited = |process: &Process| {
        process.environ().is_ok_and(|variables| {
            variables.get(std::ffi::OsStr::new("INVOCATION_ID")).is_some_and(|id| *id == *invocation)
        })
    };
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    all.filter(inherited).map(|process| process.pid).collect()
}

/// Ends what a unit's process left behind outside its process group, as systemd does with all of a unit's cgroup. Wine
/// leaves a server in a session of its own, which gets the chance to write the registry to disk: SIGTERM comes first.
pub async fn end_heirs(invocation: &str) {
    let start = Instant::now();
    let mut signal = Some(Signal::SIGTERM);
    // What not even SIGKILL ends stands still in the kernel, and would be waited for in vain.
    while start.elapsed() < 2 * HEIRS_PATIENCE {
        let left = heirs(invocation);
        if left.is_empty() {
            return;
        }
        if start.elapsed() >= HEIRS_PATIENCE {
            signal = Some(Signal::SIGKILL);
        }
        if let Some(signal) = signal.take() {
            left.into_iter().for_each(|pid| {
                // It may have gone in between.
                let _ = kill(Pid::from_raw(pid), signal);
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// All processes that descend from this one, while their parents still live: such as have left its process group, too, as the servers of
/// PostgreSQL do.
pub fn descendants(pid: i32) -> Vec<i32> {
    let stats =
        procfs::process::all_processes().into_iter().flatten().flatten().filter_map(|process| process.stat().ok());
    let parents: Vec<(i32, i32)> = stats.map(|stat| (stat.ppid, stat.pid)).collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(of, _)| *of == parent).map(|(_, child)| *child));
        next += 1;
    }
    family.split_off(1)
}

fn start_time(pid: i32) -> Option<u64> {
    let stat = Process::new(pid).ok()?.stat().ok()?;
    (stat.state != 'Z').then_some(stat.starttime)
}

/// The folder of the records, one file a unit.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Uses `folder`, and makes it if it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn at(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes down what runs as `unit`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(&self, unit: &str, record: &Record) -> io::Result<()> {
        fs::write(self.folder.join(unit), serde_json::to_vec(record)?)
    }

    /// Forgets what ran as `unit`.
    pub fn forget(&self, unit: &str) {
        // A record that stays is harmless: it names a process that is gone.
        let _ = fs::remove_file(self.folder.join(unit));
    }

    /// Ends whatever earlier supervisors left: it has `patience` to go by itself (it got the signal that its parent's
    /// death sends), then gets SIGKILL. Returns the units that were found alive.
    ///
    /// # Errors
    /// The records cannot be read, or a process cannot be ended.
    pub async fn clean_up(&self, patience: Duration) -> io::Result<Vec<String>> {
        let found = self.living()?;
        let deadline = Instant::now() + patience;
        let mut left = found.clone();
        while !left.is_empty() {
            if Instant::now() >= deadline {
                left.iter().flat_map(|(_, pids)| pids).for_each(|pid| {
                    // It may have gone in between.
                    let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
                });
            }
            if Instant::now() >= deadline + Duration::from_secs(10) {
                let names: Vec<&str> = left.iter().map(|(unit, _)| unit.as_str()).collect();
                return Err(io::Error::other(format!("cannot end what an earlier run left: {}", names.join(", "))));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            left = self.living()?;
        }
        for entry in fs::read_dir(&self.folder)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(found.into_iter().map(|(unit, _)| unit).collect())
    }

    fn living(&self) -> io::Result<Vec<(String, Vec<i32>)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // A half-written record is one of a process that its parent's death ended.
            let Ok(record) = serde_json::from_slice::<Record>(&fs::read(entry.path())?) else { continue };
            let pids = record.living();
            if !pids.is_empty() {
                found.push((entry.file_name().to_string_lossy().into_owned(), pids));
            }
        }
        Ok(found)
    }
}
