//! How often each event was tried in vain, for a reason of its own.
//!
//! How often the server delivered it says something else: it delivers again too what was given back because the database was away,
//! or because this process stopped.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

/// The tries of events that are to be tried again. A process counts its own only: an event that went on to another instance begins
/// anew there, and is forgotten here as soon as there is no room for it.
#[derive(Debug)]
pub(super) struct Tries {
    room: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Tries, and when the last of them was, by the clock.
    known: HashMap<Uuid, (u32, u64)>,
    clock: u64,
}

impl Tries {
    /// Remembers at most this many events.
    pub(super) fn new(room: usize) -> Self {
        Self { room: room.max(1), counts: Mutex::default() }
    }

    /// How often it was tried in vain.
    pub(super) fn of(&self, event: Uuid) -> u32 {
        self.counts().known.get(&event).map_or(0, |(tries, _)| *tries)
    }

    /// It was tried in vain once more.
    pub(super) fn failed(&self, event: Uuid) {
        let counts = &mut *self.counts();
        if counts.known.len() >= self.room && !counts.known.contains_key(&event) {
            counts.forget_oldest();
        }
        counts.clock += 1;
        let (tries, last) = counts.known.entry(event).or_default();
        (*tries, *last) = (tries.saturating_add(1), counts.clock);
    }

    /// It is not tried again.
    pub(super) fn forget(&self, event: Uuid) {
        self.counts().known.remove(&event);
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn forget_oldest(&mut self) {
        let oldest = self.known.iter().min_by_key(|(_, (_, last))| *last).map(|(event, _)| *event);
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_until_the_event_is_done_with() {
        let (tries, event) = (Tries::new(2), Uuid::now_v7());
        assert_eq!(tries.of(event), 0);
        tries.failed(event);
        tries.failed(event);
        assert_eq!(tries.of(event), 2);
        tries.forget(event);
        assert_eq!(tries.of(event), 0);
    }

    #[test]
    fn the_one_that_was_not_tried_for_longest_makes_room() {
        let (tries, [first, second, third]) = (Tries::new(2), [(); 3].map(|()| Uuid::now_v7()));
        for event in [first, second, first, third] {
            tries.failed(event);
        }
        assert_eq!([first, second, third].map(|event| tries.of(event)), [2, 0, 1]);
    }
}
