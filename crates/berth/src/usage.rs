//! How much processor time and memory each unit takes, read from `/proc`.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use procfs::process::{Stat, all_processes};
use serde::Serialize;

use crate::supervisor::board::Board;

/// What one unit takes, its child processes included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Share of one processor since the sample before, in percent; may exceed 100.
    pub cpu_percent: f64,
    /// Processor time of the living processes, in seconds.
    pub cpu_seconds: f64,
    /// Memory that nobody else shares, in bytes.
    pub memory_bytes: u64,
}

/// Takes samples, and remembers the last.
#[derive(Debug, Default)]
pub struct Sampler {
    before: Option<(Instant, HashMap<String, f64>)>,
}

impl Sampler {
    /// What each unit with a process takes now.
    pub fn sample(&mut self, board: &Board) -> BTreeMap<String, Usage> {
        let now = Instant::now();
        let children = Children::read();
        let mut usage = BTreeMap::new();
        for unit in &board.units {
            let Some(pid) = unit.pid.and_then(|pid| i32::try_from(pid).ok()) else { continue };
            let mut total = children.total(pid);
            if let Some((then, earlier)) = &self.before {
                let seconds = now.duration_since(*then).as_secs_f64().max(0.001);
                let spent = total.cpu_seconds - earlier.get(&unit.name).copied().unwrap_or(total.cpu_seconds);
                // A child that ended took its time with it.
                total.cpu_percent = (spent.max(0.0) / seconds) * 100.0;
            }
            usage.insert(unit.name.clone(), total);
        }
        self.before = Some((now, usage.iter().map(|(name, usage)| (name.clone(), usage.cpu_seconds)).collect()));
        usage
    }
}

/// All processes, by parent.
struct Children {
    by_parent: HashMap<i32, Vec<i32>>,
    own: HashMap<i32, Usage>,
}

impl Children {
    fn read() -> Self {
        let mut found = Self { by_parent: HashMap::new(), own: HashMap::new() };
        let ticks = procfs::ticks_per_second() as f64;
        let page = procfs::page_size();
        for process in all_processes().into_iter().flatten().flatten() {
            let Ok(Stat { pid, ppid, utime, stime, .. }) = process.stat() else { continue };
            let memory_bytes = process.statm().map_or(0, |statm| statm.resident.saturating_sub(statm.shared) * page);
            let usage = Usage { cpu_percent: 0.0, cpu_seconds: (utime + stime) as f64 / ticks, memory_bytes };
            found.by_parent.entry(ppid).or_default().push(pid);
            found.own.insert(pid, usage);
        }
        found
    }

    fn total(&self, root: i32) -> Usage {
        let mut total = Usage::default();
        let mut open = vec![root];
        while let Some(pid) = open.pop() {
            let own = self.own.get(&pid).copied().unwrap_or_default();
            total.cpu_seconds += own.cpu_seconds;
            total.memory_bytes += own.memory_bytes;
            open.extend(self.by_parent.get(&pid).into_iter().flatten());
        }
        total
    }
}
