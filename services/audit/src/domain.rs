//! Entries, the hashes that chain them, and the walk that finds where the chain is broken.

use std::fmt;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// Most faults that one walk tells.
pub const MAX_FAULTS: usize = 100;

/// What the first bytes of every hashed entry are.
const DOMAIN: &[u8] = b"berth-audit-entry-v1";

/// The length that stands for an absent field.
const ABSENT: u64 = u64::MAX;

/// SHA-256; written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first entry follows: 32 zero bytes.
    pub const GENESIS: Self = Self([0; 32]);

    /// A hash from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A hash from its text.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        Self::from_bytes(&HEXLOWER.decode(text.as_bytes()).ok()?)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Something to be remembered, before it has its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The id of the event or the report: one that comes twice is recorded once.
    pub id: Uuid,
    /// What happened: the subject of the event.
    pub kind: String,
    /// Who told of it: the SPIFFE ID of a service.
    pub source: String,
    /// What it happened to: `order/0192…`.
    pub subject: String,
    /// The subject of the principal who caused it.
    pub actor: Option<String>,
    /// When it happened, as its source says.
    pub occurred_at: Timestamp,
    /// All that was told of it, as JSON.
    pub content: String,
}

/// A link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1, without gaps.
    pub seq: i64,
    /// When it was appended, by the clock of the audit's database; never before the entry before it.
    pub recorded_at: Timestamp,
    /// What is remembered.
    pub record: Record,
    /// The hash of the entry before it.
    pub previous: Hash,
    /// The hash of all of the above.
    pub hash: Hash,
}

/// The end of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last entry; 0 when there is none.
    pub seq: i64,
    /// Its hash.
    pub hash: Hash,
}

impl Entry {
    /// The entry that follows `head`. Times have the precision of PostgreSQL, so that they come back as they were hashed.
    #[must_use]
    pub fn append(head: Head, recorded_at: Timestamp, record: Record) -> Self {
        let recorded_at = to_microseconds(recorded_at);
        let record = Record { occurred_at: to_microseconds(record.occurred_at), ..record };
        let mut entry = Self { seq: head.seq + 1, recorded_at, record, previous: head.hash, hash: Hash::GENESIS };
        entry.hash = entry.computed();
        entry
    }

    /// The end of a chain that ends here.
    #[must_use]
    pub fn as_head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    /// The hash its contents give.
    #[must_use]
    pub fn computed(&self) -> Hash {
        let Record { id, kind, source, subject, actor, occurred_at, content } = &self.record;
        let mut hasher = Sha256::new();
        hasher.update(DOMAIN);
        let mut field = |bytes: Option<&[u8]>| {
            hasher.update(bytes.map_or(ABSENT, |bytes| bytes.len() as u64).to_be_bytes());
            hasher.update(bytes.unwrap_or_default());
        };
        field(Some(&self.previous.0));
        field(Some(self.seq.to_string().as_bytes()));
        field(Some(time(self.recorded_at).as_bytes()));
        field(Some(id.to_string().as_bytes()));
        field(Some(kind.as_bytes()));
        field(Some(source.as_bytes()));
        field(Some(subject.as_bytes()));
        field(actor.as_deref().map(str::as_bytes));
        field(Some(time(*occurred_at).as_bytes()));
        field(Some(content.as_bytes()));
        Hash(hasher.finalize().into())
    }
}

/// RFC 3339 in UTC with six digits of a second: `2026-11-23T10:00:00.123456Z`.
fn time(at: Timestamp) -> String {
    format!("{at:.6}")
}

fn to_microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// Something that is wrong with the chain, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// There are no entries with these numbers.
    Missing {
        /// The first of them.
        first: i64,
        /// The last of them.
        last: i64,
    },
    /// The entry is not what it was when its hash was made.
    Changed {
        /// Which one.
        seq: i64,
    },
    /// The entry does not follow from the one before it: one of the two was put in the place of another, or in between.
    Unlinked {
        /// Which one.
        seq: i64,
    },
    /// There are entries beyond the end of the chain.
    Surplus {
        /// The first of them.
        first: i64,
        /// The last of them.
        last: i64,
    },
    /// A signed checkpoint, or the end of the chain, remembers another entry here.
    Rewritten {
        /// Which one.
        seq: i64,
    },
}

/// A walk along the chain, entry by entry, in constant memory.
#[derive(Debug)]
pub struct Walk {
    next: i64,
    last: i64,
    previous: Hash,
    walked: u64,
    faults: Vec<Fault>,
}

impl Walk {
    /// From behind `before` to `last`.
    #[must_use]
    pub fn new(before: Head, last: i64) -> Self {
        Self { next: before.seq + 1, last, previous: before.hash, walked: 0, faults: Vec::new() }
    }

    fn step(&mut self, entry: &Entry) {
        self.missing_until(entry.seq);
        if entry.computed() != entry.hash {
            self.fault(Fault::Changed { seq: entry.seq });
        }
        // Behind a gap nobody knows what it should follow.
        if entry.seq == self.next && entry.previous != self.previous {
            self.fault(Fault::Unlinked { seq: entry.seq });
        }
        self.next = entry.seq + 1;
        self.previous = entry.hash;
        self.walked += 1;
    }

    /// The next entries that exist, as long as there are not too many faults.
    pub fn along(&mut self, entries: &[Entry]) {
        for entry in entries {
            if self.is_hopeless() {
                return;
            }
            self.step(entry);
        }
    }

    /// Notes entries that are not there, up to but without `seq`. The walk goes on behind them.
    fn missing_until(&mut self, seq: i64) {
        if self.next < seq {
            self.fault(Fault::Missing { first: self.next, last: seq - 1 });
            self.next = i64::MIN;
        }
    }

    /// Whether there are enough faults to stop.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.faults.len() >= MAX_FAULTS
    }

    /// The number of the entry that is to come; past the end, the walk is over.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.next
    }

    /// There are no further entries up to the end: notes those that are missing.
    pub fn end(&mut self) {
        let last = self.last;
        self.missing_until(last + 1);
        self.next = last + 1;
    }

    /// Notes a fault that was found besides the walk.
    pub fn fault(&mut self, fault: Fault) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// How many entries were walked, and what is wrong with them.
    #[must_use]
    pub fn result(self) -> (u64, Vec<Fault>) {
        (self.walked, self.faults)
    }
}

#[cfg(test)]
mod tests;
