//! Events whose last try was none of their own fault, and could not be taken back in the database because that was what failed.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

/// At most as many as a process can have in its hands, so there is no need to forget any but by use.
#[derive(Debug, Default)]
pub(super) struct Excused(Mutex<HashSet<Uuid>>);

impl Excused {
    /// The next try of this event does not count.
    pub(super) fn add(&self, event: Uuid) {
        self.events().insert(event);
    }

    /// Whether this try of the event does not count.
    pub(super) fn take(&self, event: Uuid) -> bool {
        self.events().remove(&event)
    }

    fn events(&self) -> std::sync::MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
