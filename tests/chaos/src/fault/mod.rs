//! What goes wrong. One file for each kind of harm; each strikes once, leaves the mesh alone with it for a while, and heals it.

mod connections;
mod database;
mod kill;
mod messages;
mod nats;
mod orders;
mod point;
mod skew;

use std::{sync::Mutex, time::Duration};

use anyhow::Result;
use chacha20::ChaCha8Rng;
use clap::ValueEnum;
use rand::RngExt as _;
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    clients::Catalogue,
    history::History,
    world::{DOCUMENTS, ITEMS, World},
};

pub use messages::Poison;

/// One way to harm the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL to any process at any moment
    Kill,
    /// A process ends at a named point of its work
    KilledAtPoint,
    /// SIGSTOP to the leader of a relay until another instance leads
    FrozenLeader,
    /// All connections of a database ended at one moment, commits in flight among them
    CutCommits,
    /// A database is killed and stays away
    DatabaseKilled,
    /// A database takes no writes
    DatabaseReadOnly,
    /// All connections of a database are taken by somebody else
    DatabaseFull,
    /// A database crashes: one of its backends is killed, and it recovers from its log
    DatabaseCrashed,
    /// A database is restored from an older backup
    DatabaseRestored,
    /// The event server is killed and stays away
    NatsKilled,
    /// A stream is deleted
    StreamDeleted,
    /// A stream takes no more messages
    StreamFull,
    /// The event server comes back with an older copy of its store
    NatsRolledBack,
    /// Old messages are delivered again, out of order, beyond the window in which the server knows duplicates
    Duplicates,
    /// A consumer is deleted: everything is delivered again
    Redelivery,
    /// Messages that nobody can handle
    Poison,
    /// Events with a version of their data that nobody knows
    UnknownVersion,
    /// A service's or a database's clock is an hour fast or slow
    ClockSkew,
    /// Many orders at once for the last of an item
    OneItem,
    /// An item is deleted in the middle of an order for it
    ItemDeleted,
    /// One idempotency key many times at once, with two different bodies
    SameKey,
}

/// What faults leave behind for the reckoning at the end.
#[derive(Debug, Default)]
pub struct Aftermath {
    /// Messages that must be all there is among the dead letters.
    pub poison: Mutex<Vec<Poison>>,
    /// What faults asked the mesh for as clients.
    pub history: Mutex<History>,
}

/// What a fault works with.
pub struct Scene<'a> {
    /// Whom to harm.
    pub world: &'a World,
    /// What there is to buy.
    pub catalogue: &'a Catalogue,
    /// What is left behind.
    pub aftermath: &'a Aftermath,
}

impl Fault {
    /// The word for it on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether the shop promises to survive it. A backup is older than what was acknowledged since: see docs/guarantees.md.
    pub fn is_survivable(self) -> bool {
        self != Self::DatabaseRestored
    }

    /// What this machine lacks for it, if it does.
    pub fn lacks(self) -> Option<&'static str> {
        (self == Self::ClockSkew && skew::library().is_none()).then_some(skew::LACKING)
    }

    /// Strikes once and heals; gives what was done, in words.
    ///
    /// # Errors
    /// It could not be done or not be healed, which says something about the mesh, too.
    pub async fn strike(self, scene: &Scene<'_>, dice: &mut ChaCha8Rng) -> Result<String> {
        match self {
            Self::Kill => kill::any(scene.world, dice).await,
            Self::KilledAtPoint => point::strike(scene.world, dice).await,
            Self::FrozenLeader => kill::freeze_leader(scene.world, dice).await,
            Self::CutCommits => connections::cut(scene.world, dice).await,
            Self::DatabaseKilled => database::kill(scene.world, dice).await,
            Self::DatabaseReadOnly => database::read_only(scene.world, dice).await,
            Self::DatabaseFull => connections::occupy(scene.world, dice).await,
            Self::DatabaseCrashed => database::crash(scene.world, dice).await,
            Self::DatabaseRestored => database::restore(scene.world, dice).await,
            Self::NatsKilled => nats::kill(scene.world, dice).await,
            Self::StreamDeleted => nats::delete_stream(scene.world, dice).await,
            Self::StreamFull => nats::fill_stream(scene.world, dice).await,
            Self::NatsRolledBack => nats::roll_back(scene.world, dice).await,
            Self::Duplicates => messages::repeat(scene.world, dice).await,
            Self::Redelivery => messages::deliver_all_again(scene.world, dice).await,
            Self::Poison => messages::poison(scene, dice).await,
            Self::UnknownVersion => messages::unknown_version(scene, dice).await,
            Self::ClockSkew => skew::strike(scene.world, dice).await,
            Self::OneItem => orders::quarrel(scene, dice).await,
            Self::SameKey => orders::same_key(scene, dice).await,
            Self::ItemDeleted => orders::delete_item(scene, dice).await,
        }
    }
}

/// A time from `least` to `most` milliseconds.
fn moment(dice: &mut ChaCha8Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(dice.random_range(least..=most))
}

/// Kills a unit, and lets it come back after this time.
async fn keep_away(world: &World, unit: &str, away: Duration) -> Result<()> {
    let _claims = world.claim(&[unit]).await?;
    let (old, held) = world.kill_and_hold(unit)?;
    sleep(away).await;
    drop(held);
    world.healed(unit, old).await
}

/// A UUID that the seed decides.
fn new_id(dice: &mut ChaCha8Rng) -> Uuid {
    uuid::Builder::from_random_bytes(dice.random()).into_uuid()
}

/// The other side of the order transaction.
fn other(service: &str) -> &'static str {
    if service == ITEMS { DOCUMENTS } else { ITEMS }
}

/// One of the two databases of the order transaction: its owner and its unit.
fn either_side(dice: &mut ChaCha8Rng) -> (&'static str, String) {
    let service = if dice.random() { ITEMS } else { DOCUMENTS };
    (service, format!("{service}-db"))
}
