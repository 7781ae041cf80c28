//! What must be true when everything is quiet: counted by SQL in the databases, and compared with what clients were told.
//!
//! Each invariant is one function that gives what contradicts it, in words; nothing at all if it holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use anyhow::{Result, ensure};
use database::{Database, Row, Statements as _};
use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    fault::Poison,
    history::{End, History, Told},
    mending::mend,
    world::{DOCUMENTS, ITEMS, World},
};

/// How long the mesh may take to finish what it owes once everything is healed. A lost answer is asked for again after half
/// a minute, then after one, then after two.
pub const QUIET_WITHIN: Duration = Duration::from_secs(240);

/// The service that keeps a chain of everything that happened, where the mesh has one.
const AUDIT: &str = "audit";

/// At most so many contradictions of one invariant are told.
const TOLD: usize = 8;

/// What became of one invariant.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    /// Its name.
    pub invariant: &'static str,
    /// What contradicts it; the first few, then how many more.
    pub contradictions: Vec<String>,
}

impl Finding {
    /// What contradicts an invariant, shortened.
    pub(crate) fn new(invariant: &'static str, mut contradictions: Vec<String>) -> Self {
        if let Some(more) = contradictions.len().checked_sub(TOLD).filter(|more| *more > 0) {
            contradictions.truncate(TOLD);
            contradictions.push(format!("and {more} more"));
        }
        Self { invariant, contradictions }
    }

    /// Whether the invariant holds.
    pub fn holds(&self) -> bool {
        self.contradictions.is_empty()
    }
}

/// Waits until nothing is owed, under way or parked any more; gives what still is when the time is over. Where a database was `restored`,
/// somebody mends meanwhile what is left to a person.
pub async fn quiesce(world: &World, restored: bool) -> Finding {
    let end = Instant::now() + QUIET_WITHIN;
    loop {
        let mended = if restored { mend(world).await } else { Ok(()) };
        let owed = match mended.and(owed(world).await) {
            Ok(owed) => owed,
            Err(error) => vec![format!("cannot be asked: {error:#}")],
        };
        if owed.is_empty() || Instant::now() >= end {
            return Finding::new("everything that was begun ends", owed);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn owed(world: &World) -> Result<Vec<String>> {
    let mut owed = Vec::new();
    for (service, database) in world.messengers() {
        let sql =
            "SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL), (SELECT count(*) FROM outbox_batches),
            (SELECT count(*) FROM inbox_parked)";
        let row = database.get().await?.one(sql, &[]).await?;
        for (column, what) in ["unpublished events", "open batches", "parked events"].into_iter().enumerate() {
            let count: i64 = row.get(column);
            if count > 0 {
                owed.push(format!("{service}: {count} {what}"));
            }
        }
    }
    let sql = "SELECT state::text, count(*) FROM sagas
        WHERE state NOT IN ('taken', 'released', 'rejected', 'returned', 'abandoned') GROUP BY state";
    for row in world.database(DOCUMENTS)?.get().await?.all(sql, &[]).await? {
        owed.push(format!("{} sagas are {}", row.get::<_, i64>(1), row.get::<_, &str>(0)));
    }
    for stream in world.plan().events.iter().flat_map(|events| &events.streams) {
        let opened = world.bus.stream(&stream.name).await?;
        for consumer in &stream.consumers {
            let info = opened.consumer_info(&*consumer.name).await?;
            let left = info.num_pending + info.num_ack_pending as u64;
            if left > 0 {
                owed.push(format!("{left} messages of {} are not handled by {}", &*stream.name, &*consumer.name));
            }
        }
    }
    Ok(owed)
}

/// Checks all of them. Where a database was `restored`, orders may be unknown of which the other side remembers that they have nothing.
///
/// # Errors
/// A database cannot be asked.
pub async fn check(world: &World, history: &History, poison: &[Poison], restored: bool) -> Result<Vec<Finding>> {
    let books = Books::read(world).await?;
    let mut findings = vec![
        Finding::new("every acknowledged command ends exactly once", books.commands(history)),
        Finding::new("a document is confirmed if and only if its reservation is taken", books.agreement(restored)),
        Finding::new("stock is conserved", books.stock(history)),
        Finding::new("no reservation without a live saga or past its deadline", books.reservations()),
    ];
    let (mut versions, mut outbox, mut inbox, mut dead) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (service, database) in world.messengers() {
        versions.extend(told(service, versions_of(database).await?));
        outbox.extend(told(service, outbox_of(database).await?));
        dead.extend(told(service, dead_letters_of(database, poison).await?));
    }
    inbox.extend(inboxes(world, poison).await?);
    findings.extend([
        Finding::new("versions are contiguous per aggregate", versions),
        Finding::new("the outbox is drained", outbox),
        Finding::new("the inbox has what the outbox had, and nothing else", inbox),
        Finding::new("dead letters hold only injected poison", dead),
        Finding::new("no answer contradicts another", history.outrages.clone()),
    ]);
    if world.plan().services.iter().any(|service| &*service.name == AUDIT) {
        findings.push(Finding::new("the audit chain verifies", audit(world).await?));
    }
    Ok(findings)
}

fn told(service: &str, contradictions: Vec<String>) -> impl Iterator<Item = String> {
    contradictions.into_iter().map(move |contradiction| format!("{service}: {contradiction}"))
}

/// Both sides' books of the order transaction.
struct Books {
    documents: HashMap<Uuid, Document>,
    keys: HashMap<String, Uuid>,
    reservations: HashMap<Uuid, Reservation>,
    items: BTreeMap<Uuid, Shelf>,
    adjustments: HashMap<String, (Uuid, i64, i64)>,
}

struct Document {
    kind: String,
    state: String,
    saga: Option<String>,
    lines: BTreeMap<Uuid, i64>,
}

struct Reservation {
    state: String,
    lines: BTreeMap<Uuid, i64>,
}

#[derive(Default)]
struct Shelf {
    on_hand: i64,
    reserved: i64,
    /// By kind of entry.
    entries: BTreeMap<String, i64>,
}

impl Document {
    fn end(&self) -> Option<End> {
        End::of_state(&self.state)
    }
}

fn lines(rows: &[Row]) -> HashMap<Uuid, BTreeMap<Uuid, i64>> {
    let mut lines: HashMap<Uuid, BTreeMap<Uuid, i64>> = HashMap::new();
    for row in rows {
        lines.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    lines
}

impl Books {
    async fn read(world: &World) -> Result<Self> {
        let documents = world.database(DOCUMENTS)?.get().await?;
        let items = world.database(ITEMS)?.get().await?;
        let mut wanted = lines(&documents.all("SELECT document_id, item_id, quantity FROM document_lines", &[]).await?);
        let sql =
            "SELECT d.id, d.kind::text, d.state::text, s.state::text FROM documents d LEFT JOIN sagas s USING (id)";
        let all = documents.all(sql, &[]).await?;
        let document = |row: &Row| {
            let id: Uuid = row.get(0);
            let lines = wanted.remove(&id).unwrap_or_default();
            (id, Document { kind: row.get(1), state: row.get(2), saga: row.get(3), lines })
        };
        let documents_by_id = all.iter().map(document).collect();
        let keys = documents.all("SELECT key, document_id FROM idempotency_keys", &[]).await?;
        let mut held = lines(&items.all("SELECT order_id, item_id, quantity FROM reservation_lines", &[]).await?);
        let reservations = items.all("SELECT order_id, state::text FROM reservations", &[]).await?;
        let reservation = |row: &Row| {
            let id: Uuid = row.get(0);
            (id, Reservation { state: row.get(1), lines: held.remove(&id).unwrap_or_default() })
        };
        let reservations = reservations.iter().map(reservation).collect();
        let mut shelves: BTreeMap<Uuid, Shelf> = BTreeMap::new();
        for row in items.all("SELECT id, stock_on_hand, stock_reserved FROM items", &[]).await? {
            let shelf = Shelf { on_hand: row.get(1), reserved: row.get(2), ..Shelf::default() };
            shelves.insert(row.get(0), shelf);
        }
        let sql = "SELECT item_id, kind::text, sum(change)::bigint FROM stock_entries GROUP BY item_id, kind";
        for row in items.all(sql, &[]).await? {
            shelves.entry(row.get(0)).or_default().entries.insert(row.get(1), row.get(2));
        }
        let sql = "SELECT idempotency_key, item_id, sum(change)::bigint, count(*) FROM stock_entries
            WHERE idempotency_key IS NOT NULL GROUP BY idempotency_key, item_id";
        let adjustments = items.all(sql, &[]).await?;
        Ok(Self {
            documents: documents_by_id,
            keys: keys.iter().map(|row| (row.get(0), row.get(1))).collect(),
            reservations,
            items: shelves,
            adjustments: adjustments.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3)))).collect(),
        })
    }

    fn orders(&self) -> impl Iterator<Item = (Uuid, &Document)> {
        self.documents.iter().filter(|(_, document)| document.kind == "order").map(|(id, document)| (*id, document))
    }

    /// Every command that was acknowledged was done once and has ended as it was told; none that was refused was done; and
    /// nothing was done that nobody asked for.
    fn commands(&self, history: &History) -> Vec<String> {
        let mut contradictions = Vec::new();
        for order in &history.orders {
            let made = self.keys.get(&order.key).copied();
            if let Some(wrong) = self.order(&order.told, made, &order.lines) {
                contradictions.push(format!("the order under {}: {wrong}", order.key));
            }
        }
        let asked: HashSet<Uuid> =
            history.orders.iter().filter_map(|order| self.keys.get(&order.key)).copied().collect();
        let phantoms = self.orders().filter(|(id, _)| !asked.contains(id));
        contradictions.extend(phantoms.map(|(id, _)| format!("nobody asked for order {id}, or it was made twice")));
        for adjustment in &history.adjustments {
            let written = self.adjustments.get(&adjustment.key);
            let wrong = match (adjustment.done, written) {
                (Some(true), None) => "was acknowledged and is not there",
                (Some(false), Some(_)) => "was refused and is there",
                (_, Some(written)) if *written != (adjustment.item, adjustment.change, 1) => {
                    "was not done once, as asked"
                }
                _ => continue,
            };
            contradictions.push(format!("the adjustment {}: {wrong}", adjustment.key));
        }
        for invoice in &history.invoices {
            let issued = invoice.document.and_then(|id| self.documents.get(&id));
            let invoiced = self.documents.get(&invoice.order).is_some_and(|order| order.state == "INVOICED");
            if issued.is_none_or(|issued| issued.kind != "invoice") || !invoiced {
                contradictions.push(format!("the acknowledged invoice of {} is not there", invoice.order));
            }
        }
        for note in &history.credit_notes {
            let made = self.keys.get(&note.key).and_then(|id| Some((*id, self.documents.get(id)?)));
            let wrong = match (note.document, made) {
                (Some(_), None) => "was acknowledged and is not there",
                (Some(told), Some((id, _))) if told != id => "is another document than acknowledged",
                (_, Some((_, made))) if made.state != "RETURNED" => "never got its goods back",
                _ => continue,
            };
            contradictions.push(format!("the credit note under {}: {wrong}", note.key));
        }
        contradictions
    }

    fn order(&self, told: &Told, made: Option<Uuid>, lines: &[(Uuid, i64)]) -> Option<String> {
        let Some(id) = made else {
            return told.document().map(|id| format!("{id} was acknowledged and is not there"));
        };
        if let Told::Refused(status) = told {
            return Some(format!("it was refused with {status} and is there"));
        }
        if let Some(other) = told.document().filter(|other| *other != id) {
            return Some(format!("{other} was acknowledged and {id} is there"));
        }
        let document = self.documents.get(&id)?;
        let Some(end) = document.end() else {
            return Some(format!("{id} has not ended: {}", document.state));
        };
        if let Told::Ended(_, expected) = told
            && *expected != end
        {
            return Some(format!("{id} was told to be {expected:?} and is {end:?}"));
        }
        (document.lines != lines.iter().copied().collect()).then(|| format!("{id} holds other lines than were ordered"))
    }

    fn agreement(&self, restored: bool) -> Vec<String> {
        let mut contradictions = Vec::new();
        for (id, order) in self.orders() {
            let reservation = self.reservations.get(&id);
            let state = reservation.map(|reservation| reservation.state.as_str());
            let (saga, agrees) = match order.end() {
                Some(End::Confirmed) => ("taken", state == Some("taken")),
                Some(End::Rejected) => ("rejected", matches!(state, Some("refused" | "released"))),
                Some(End::Cancelled) => ("released", matches!(state, Some("released" | "refused"))),
                None => ("", false),
            };
            if !agrees {
                contradictions.push(format!("order {id} is {} and its reservation {state:?}", order.state));
            }
            // A refusal that was answered once more may have been released since.
            if order.saga.as_deref() != Some(saga) && order.end() != Some(End::Rejected) {
                contradictions.push(format!("order {id} is {} and its saga {:?}", order.state, order.saga));
            }
            if state == Some("taken") && reservation.is_some_and(|reservation| reservation.lines != order.lines) {
                contradictions.push(format!("order {id} took other goods than it holds"));
            }
        }
        let has_something = |reservation: &Reservation| matches!(&*reservation.state, "held" | "taken");
        let orphans = self.reservations.iter().filter(|(id, _)| !self.documents.contains_key(id));
        let orphans = orphans.filter(|(_, reservation)| !restored || has_something(reservation));
        contradictions.extend(orphans.map(|(id, of)| format!("a reservation of no order, {id}, is {}", of.state)));
        contradictions
    }

    /// What is on a shelf is what it began with and what people changed, less what confirmed orders say and plus what returned credit
    /// notes say: the items' side computed from the documents' side.
    fn stock(&self, history: &History) -> Vec<String> {
        let mut sold: HashMap<Uuid, i64> = HashMap::new();
        for document in self.documents.values() {
            let sign = match (document.kind.as_str(), document.end(), document.state.as_str()) {
                ("order", Some(End::Confirmed), _) => -1,
                ("credit-note", _, "RETURNED") => 1,
                _ => continue,
            };
            for (item, quantity) in &document.lines {
                *sold.entry(*item).or_default() += sign * quantity;
            }
        }
        let mut held: HashMap<Uuid, i64> = HashMap::new();
        for reservation in self.reservations.values().filter(|reservation| reservation.state == "held") {
            for (item, quantity) in &reservation.lines {
                *held.entry(*item).or_default() += quantity;
            }
        }
        let mut contradictions = Vec::new();
        for (item, shelf) in &self.items {
            let of = |kind: &str| shelf.entries.get(kind).copied().unwrap_or_default();
            let opening = history.openings.get(item).copied().unwrap_or_else(|| of("opening"));
            let expected = opening + of("adjustment") + sold.get(item).copied().unwrap_or_default();
            let entries: i64 = shelf.entries.values().sum();
            let reserved = held.get(item).copied().unwrap_or_default();
            if (shelf.on_hand, shelf.on_hand, shelf.reserved) != (expected, entries, reserved) {
                contradictions.push(format!(
                    "item {item} has {} on hand (documents say {expected}, its ledger {entries}) and {} reserved (reservations say {reserved})",
                    shelf.on_hand, shelf.reserved
                ));
            }
        }
        contradictions
    }

    /// When all is quiet no saga lives, so nothing may be held.
    fn reservations(&self) -> Vec<String> {
        let held = self.reservations.iter().filter(|(_, reservation)| reservation.state == "held");
        let saga = |id| self.documents.get(id).and_then(|document| document.saga.as_deref());
        held.map(|(id, _)| format!("{id} is held, its saga is {:?}", saga(id))).collect()
    }
}

/// Events of an aggregate are numbered from 1 without gaps, each number once, and stand in the stream in that order.
async fn versions_of(database: &Database) -> Result<Vec<String>> {
    let sql = "SELECT aggregate_type, aggregate_id, count(*), min(o.version), max(o.version), a.version,
            bool_and(coalesce(stream_sequence > before, true))
        FROM (SELECT *, lag(stream_sequence) OVER (PARTITION BY aggregate_type, aggregate_id ORDER BY version) AS before FROM outbox) o
        LEFT JOIN outbox_aggregates a USING (aggregate_type, aggregate_id)
        GROUP BY aggregate_type, aggregate_id, a.version
        HAVING count(*) <> max(o.version) OR min(o.version) <> 1 OR count(DISTINCT o.version) <> count(*)
            OR a.version IS DISTINCT FROM max(o.version) OR NOT bool_and(coalesce(stream_sequence > before, true))";
    let rows = database.get().await?.all(sql, &[]).await?;
    let contradiction = |row: &Row| {
        format!(
            "{} {} has {} events from {} to {}, is at {:?}, in order in the stream: {}",
            row.get::<_, &str>(0),
            row.get::<_, Uuid>(1),
            row.get::<_, i64>(2),
            row.get::<_, i64>(3),
            row.get::<_, i64>(4),
            row.get::<_, Option<i64>>(5),
            row.get::<_, bool>(6)
        )
    };
    Ok(rows.iter().map(contradiction).collect())
}

async fn outbox_of(database: &Database) -> Result<Vec<String>> {
    let sql = "SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL OR stream_sequence IS NULL),
        (SELECT count(*) FROM outbox_batches), (SELECT count(stream_sequence) - count(DISTINCT stream_sequence) FROM outbox)";
    let row = database.get().await?.one(sql, &[]).await?;
    let what = ["events are not published", "batches are open", "events share their place in the stream with another"];
    let counted = what.into_iter().enumerate().map(|(column, what)| (row.get::<_, i64>(column), what));
    Ok(counted.filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect())
}

async fn dead_letters_of(database: &Database, poison: &[Poison]) -> Result<Vec<String>> {
    let rows = database.get().await?.all("SELECT id, subject, reason, payload FROM dead_letters", &[]).await?;
    let innocent = |row: &&Row| !poison.iter().any(|poison| poison.is(row.get("payload")));
    let letter = |row: &Row| {
        format!("{} {}: {}", row.get::<_, i64>("id"), row.get::<_, &str>("subject"), row.get::<_, &str>("reason"))
    };
    Ok(rows.iter().filter(innocent).map(letter).collect())
}

/// What each consumer has handled or put aside is what its producer owed it: no more, no less.
async fn inboxes(world: &World, poison: &[Poison]) -> Result<Vec<String>> {
    let injected: BTreeSet<Uuid> = poison.iter().filter_map(Poison::event).collect();
    let mut contradictions = Vec::new();
    for stream in world.plan().events.iter().flat_map(|events| &events.streams) {
        let producer = world.database(&stream.name)?.get().await?;
        let owed = producer.all("SELECT id, subject FROM outbox", &[]).await?;
        for consumer in &stream.consumers {
            let name = format!("{}/{}", &*stream.name, &*consumer.name);
            let wants = |subject: &str| consumer.filters.iter().any(|filter| outbox::matches(filter, subject));
            let owed: BTreeSet<Uuid> = owed.iter().filter(|row| wants(row.get(1))).map(|row| row.get(0)).collect();
            let Ok(database) = world.database(&consumer.name) else { continue };
            let sql = "SELECT message_id, count(*) FROM inbox WHERE consumer = $1 GROUP BY message_id";
            let rows = database.get().await?.all(sql, &[&name]).await?;
            let handled: BTreeSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
            let twice = rows.iter().filter(|row| row.get::<_, i64>(1) > 1).count();
            let strange = handled.difference(&owed).filter(|id| !injected.contains(id)).count();
            let missing = owed.difference(&handled).count();
            for (count, what) in
                [(twice, "twice in"), (strange, "in the inbox, and no outbox has them:"), (missing, "missing in")]
            {
                if count > 0 {
                    contradictions.push(format!("{count} messages {what} {name}"));
                }
            }
        }
    }
    Ok(contradictions)
}

/// Has the audit service walk its whole chain.
async fn audit(world: &World) -> Result<Vec<String>> {
    let (auditor, mut from) = (world.users.caller("dave"), 1);
    let mut contradictions = Vec::new();
    loop {
        let answer = auditor.send(Method::GET, &format!("/audit/verify?from={from}"), &[], &Value::Null).await?;
        ensure!(answer.status.is_success(), "the chain cannot be verified: {} {}", answer.status, answer.body);
        if answer.body.get("verified").and_then(Value::as_bool) != Some(true) {
            contradictions.push(format!("from {from}: {}", answer.body.get("faults").unwrap_or(&Value::Null)));
        }
        match answer.body.get("next").and_then(Value::as_i64) {
            Some(next) => from = next,
            None => return Ok(contradictions),
        }
    }
}
