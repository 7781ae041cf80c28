//! Customers and a clerk who go on whatever happens, several at a time, and note down every answer.
//!
//! A request that is not answered, or is answered with an error that says nothing, is sent again under its key, like every
//! client of this interface should; and now and then somebody loses patience, so that nobody ever learns what became of it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use chacha20::ChaCha8Rng;
use rand::{Rng as _, RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    history::{Adjustment, CreditNote, End, History, Invoice, Line, Order, Told},
    world::{Answer, Caller, World},
};

/// How often a request is sent before its client gives up.
const TRIES: u32 = 8;
/// Longest time until an item can be made.
const SERVES_WITHIN: Duration = Duration::from_secs(180);
/// Items that never run out, and items over which orders quarrel.
const PLENTY: usize = 24;
const SCARCE: usize = 4;
const PLENTY_STOCK: i64 = 1_000_000;
const SCARCE_STOCK: i64 = 60;

/// What there is to buy.
#[derive(Debug, Clone)]
pub struct Catalogue(Vec<Line>);

impl Catalogue {
    /// Puts goods on the shelves.
    ///
    /// # Errors
    /// The mesh does not work even now.
    pub async fn stock(world: &World, dice: &mut ChaCha8Rng) -> Result<Self> {
        let mut items = Vec::new();
        for number in 0..PLENTY + SCARCE {
            let stock = if number < PLENTY { PLENTY_STOCK } else { SCARCE_STOCK };
            items.push((create_item(world, stock, dice).await?, stock));
        }
        Ok(Self(items))
    }

    /// A few different items, a few of each.
    fn basket(&self, dice: &mut ChaCha8Rng) -> Vec<Line> {
        let wanted = dice.random_range(1..=3);
        self.0.sample(dice, wanted).map(|(item, _)| *item).map(|item| (item, dice.random_range(1..=3))).collect()
    }

    fn history(&self) -> History {
        History { openings: self.0.iter().copied().collect(), ..History::default() }
    }
}

/// Makes an item with so much stock: at last, since a mesh that has just come up, or is under another fault, does not answer everything.
/// One whose answer was lost is one more that nobody buys.
///
/// # Errors
/// It was not made in all that time.
pub async fn create_item(world: &World, stock: i64, dice: &mut ChaCha8Rng) -> Result<Uuid> {
    let (number, end) = (dice.next_u64(), Instant::now() + SERVES_WITHIN);
    let mut attempt = 1;
    loop {
        match try_to_create_item(world, stock, &format!("SKU-{number:016x}-{attempt}")).await {
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(200)).await,
            made => return made,
        }
        attempt += 1;
    }
}

async fn try_to_create_item(world: &World, stock: i64, sku: &str) -> Result<Uuid> {
    let body = json!({
        "sku": sku, "name": "A chair",
        "price": { "amount": 1999, "currency": "EUR" }, "stock_on_hand": stock,
    });
    let answer = world.users.caller("carol").send(Method::POST, "/items", &[], &body).await?;
    ensure!(answer.status.as_u16() == 201, "an item was not made: {} {}", answer.status, answer.body);
    Ok(answer.text("id").context("an item without an id")?.parse()?)
}

/// A key nobody has used, and everybody with the same seed.
pub fn new_key(dice: &mut ChaCha8Rng) -> String {
    format!("{:032x}", dice.random::<u128>())
}

/// The body of an order.
pub fn order_of(lines: &[Line]) -> Value {
    let lines: Vec<Value> =
        lines.iter().map(|(item, quantity)| json!({ "item_id": item, "quantity": quantity })).collect();
    json!({ "kind": "order", "lines": lines })
}

/// What an answer to an order says.
pub fn told(answer: &Answer) -> Told {
    let status = answer.status.as_u16();
    let document = answer.text("id").or(answer.text("document")).and_then(|id| id.parse().ok());
    match (status, document) {
        (201 | 202 | 409, Some(document)) => {
            let end = answer.text("state").and_then(End::of_state);
            end.map_or(Told::Placed(document), |end| Told::Ended(document, end))
        }
        (400 | 404 | 422, _) => Told::Refused(status),
        _ => Told::Nothing,
    }
}

/// Lets so many clients ask until `end`; gives what all of them remember.
pub async fn run(world: &Arc<World>, catalogue: &Catalogue, seed: u64, clients: u32, end: Instant) -> History {
    let running: Vec<_> = (0..clients)
        .map(|number| {
            let dice = ChaCha8Rng::seed_from_u64(seed.wrapping_add(1 + u64::from(number)));
            let (world, catalogue) = (Arc::clone(world), catalogue.clone());
            tokio::spawn(async move {
                let name = if number % 2 == 0 { "alice" } else { "bob" };
                let mut client =
                    Client { world: &world, catalogue: &catalogue, name, dice, history: History::default() };
                client.ask_until(end).await;
                client.history
            })
        })
        .collect();
    let mut all = catalogue.history();
    for client in running {
        match client.await {
            Ok(history) => all.merge(history),
            Err(error) => all.outrages.push(format!("a client broke: {error}")),
        }
    }
    all
}

/// One client.
struct Client<'a> {
    world: &'a World,
    catalogue: &'a Catalogue,
    name: &'static str,
    dice: ChaCha8Rng,
    history: History,
}

impl Client<'_> {
    async fn ask_until(&mut self, end: Instant) {
        while Instant::now() < end {
            match self.dice.random_range(0..100) {
                0..80 => {
                    self.order().await;
                }
                80..85 => self.order_and_cancel().await,
                85..88 => self.order_twice_at_once().await,
                88..91 => self.order_something_else_under_the_same_key().await,
                91..95 => self.adjust().await,
                _ => self.invoice_and_credit().await,
            }
        }
    }

    async fn order(&mut self) -> Option<Uuid> {
        let (key, lines) = (new_key(&mut self.dice), self.catalogue.basket(&mut self.dice));
        let told = self.place(&key, &lines).await;
        self.history.orders.push(Order { key, lines, told });
        let document = told.document()?;
        self.look_at(document, told).await;
        Some(document)
    }

    /// Sends an order until somebody says what became of it.
    async fn place(&mut self, key: &str, lines: &[Line]) -> Told {
        let wait = if self.dice.random_bool(0.3) { "wait=5" } else { "wait=0" };
        let tries = if self.dice.random_bool(0.05) { 1 } else { TRIES };
        let mut told = Told::Nothing;
        for attempt in 0..tries {
            let answer = self.send("/documents", &[("idempotency-key", key), ("prefer", wait)], &order_of(lines)).await;
            if let Ok(answer) = answer {
                told = self.understand(key, told, &answer);
            }
            if told != Told::Nothing {
                break;
            }
            self.pause(attempt).await;
        }
        told
    }

    /// What an answer to an order says, when `before` is what was known of it.
    fn understand(&mut self, key: &str, before: Told, answer: &Answer) -> Told {
        let now = told(answer);
        if let (Some(known), Some(told)) = (before.document(), now.document())
            && known != told
        {
            self.history.outrages.push(format!("the key {key} made both {known} and {told}"));
        }
        if now == Told::Nothing { before } else { now }
    }

    /// What was acknowledged must be there, and what has ended must not change.
    async fn look_at(&mut self, document: Uuid, told: Told) {
        if !self.dice.random_bool(0.2) {
            return;
        }
        let Ok(answer) = self.get(&format!("/documents/{document}")).await else { return };
        let now = answer.text("state").and_then(End::of_state);
        let outrage = match (answer.status.as_u16(), told) {
            (404, _) => Some(format!("the acknowledged order {document} is not there")),
            (200, Told::Ended(_, end)) if now != Some(end) => {
                Some(format!("order {document} was {end:?} and is {now:?}"))
            }
            _ => None,
        };
        self.history.outrages.extend(outrage);
    }

    async fn order_and_cancel(&mut self) {
        let Some(document) = self.order().await else { return };
        let path = format!("/documents/{document}/cancel");
        let Ok(answer) = self.send(&path, &[], &Value::Null).await else { return };
        if answer.status.as_u16() == 200
            && let Some(order) = self.history.orders.last_mut()
        {
            order.told = Told::Ended(document, End::Cancelled);
        }
    }

    /// The same order under one key, twice at the same moment: it is one order.
    async fn order_twice_at_once(&mut self) {
        let (key, lines) = (new_key(&mut self.dice), self.catalogue.basket(&mut self.dice));
        let (body, headers) = (order_of(&lines), [("idempotency-key", key.as_str())]);
        let caller = self.world.users.caller(self.name);
        self.history.requests += 2;
        let twins = tokio::join!(
            caller.send(Method::POST, "/documents", &headers, &body),
            caller.send(Method::POST, "/documents", &headers, &body)
        );
        let mut told = Told::Nothing;
        for answer in [twins.0, twins.1].into_iter().flatten() {
            told = self.understand(&key, told, &answer);
        }
        self.history.orders.push(Order { key, lines, told });
    }

    /// A key belongs to one request for ever.
    async fn order_something_else_under_the_same_key(&mut self) {
        let Some(first) = self.order().await else { return };
        let Some(key) = self.history.orders.last().map(|order| order.key.clone()) else { return };
        let mut lines = self.catalogue.basket(&mut self.dice);
        if let Some((_, quantity)) = lines.first_mut() {
            *quantity += 10;
        }
        let Ok(answer) = self.send("/documents", &[("idempotency-key", &key)], &order_of(&lines)).await else { return };
        if answer.status.is_success() {
            self.history.outrages.push(format!("the key {key} of {first} was good for another order"));
        }
    }

    /// Somebody counts the shelf and finds a few more, or a few less.
    async fn adjust(&mut self) {
        let Some((item, _)) = self.catalogue.0.choose(&mut self.dice).copied() else { return };
        let (key, change) = (new_key(&mut self.dice), self.dice.random_range(1..=40) - 8);
        let body = json!({ "change": if change == 0 { 1 } else { change }, "reason": "counted" });
        let (path, carol) = (format!("/items/{item}/stock-adjustments"), self.world.users.caller("carol"));
        let mut done = None;
        for attempt in 0..TRIES {
            self.history.requests += 1;
            let answer = carol.send(Method::POST, &path, &[("idempotency-key", &key)], &body).await;
            done = answer.ok().and_then(|answer| match answer.status.as_u16() {
                201 => Some(true),
                400 | 404 | 409 | 422 => Some(false),
                _ => None,
            });
            if done.is_some() {
                break;
            }
            self.pause(attempt).await;
        }
        let change = if change == 0 { 1 } else { change };
        self.history.adjustments.push(Adjustment { key, item, change, done });
    }

    /// An order that stands is invoiced, and some of it comes back.
    async fn invoice_and_credit(&mut self) {
        let stands = |order: &&Order| matches!(order.told, Told::Ended(_, End::Confirmed));
        let standing: Vec<_> = self.history.orders.iter().filter(stands).collect();
        let Some((order, lines)) =
            standing.choose(&mut self.dice).map(|order| (order.told.document(), order.lines.clone()))
        else {
            self.order().await;
            return;
        };
        let Some(order) = order else { return };
        let carol = self.world.users.caller("carol");
        self.history.requests += 1;
        let path = format!("/documents/{order}/invoice");
        let Ok(answer) = carol.send(Method::POST, &path, &[], &Value::Null).await else { return };
        if answer.status.as_u16() != 201 {
            return;
        }
        let Some(invoice) = answer.text("id").and_then(|id| id.parse::<Uuid>().ok()) else { return };
        self.history.invoices.push(Invoice { order, document: Some(invoice) });
        let (key, path) = (new_key(&mut self.dice), format!("/documents/{invoice}/credit-notes"));
        let body = json!({ "lines": lines.iter().take(1).map(|(item, _)| json!({ "item_id": item, "quantity": 1 })).collect::<Vec<_>>() });
        let mut document = None;
        for attempt in 0..TRIES {
            self.history.requests += 1;
            match carol.send(Method::POST, &path, &[("idempotency-key", &key)], &body).await {
                Ok(answer) if answer.status.as_u16() == 201 => {
                    document = answer.text("id").and_then(|id| id.parse().ok());
                    break;
                }
                Ok(answer) if answer.status.is_client_error() && answer.status.as_u16() != 401 => break,
                _ => self.pause(attempt).await,
            }
        }
        self.history.credit_notes.push(CreditNote { key, invoice, document });
    }

    fn caller(&self) -> Caller<'_> {
        self.world.users.caller(self.name)
    }

    async fn send(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Answer> {
        self.history.requests += 1;
        self.caller().send(Method::POST, path, headers, body).await
    }

    async fn get(&mut self, path: &str) -> Result<Answer> {
        self.history.requests += 1;
        self.caller().send(Method::GET, path, &[], &Value::Null).await
    }

    async fn pause(&mut self, attempt: u32) {
        let most = Duration::from_millis(50 << attempt.min(6));
        sleep(self.dice.random_range(most / 2..most)).await;
    }
}
