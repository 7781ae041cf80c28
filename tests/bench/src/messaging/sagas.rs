//! Whole order sagas: placed, reserved, confirmed, taken, and known to be taken; the stores and handlers of the two services over their
//! two databases and the event server, without HTTP.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use database::{Database, Statements as _};
use eshop_documents::{
    domain::{self, Money, Patience, Quote, SelectedLine, Selection},
    messages as documents,
    store::{Cause, NewOrder, RequestKey, Store},
};
use item_management::{messages as items, store};
use outbox::{Consumer, Events, Outbox, Relay, RelayOptions};
use runtime::clock::Clock;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Goal, Servers, median, rate, raw, report::Bound};

const ORDERS: u64 = 1500;
const RECEIVED: u64 = 6000;
/// So many that orders seldom meet.
const ITEMS: i32 = 500;

pub(super) async fn measure(servers: &Servers, rounds: u32) -> Result<Goal> {
    let shop = Shop::open(servers).await?;
    let data = raw::data();
    let turn = AtomicU64::new(0);
    let (mut received, mut sagas) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        servers.clear().await?;
        let raw = raw::by_all_writers(RECEIVED, || {
            let second = turn.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            raw::receive(if second { &servers.items } else { &servers.documents }, &data)
        });
        let raw = raw.await?;
        // What was owed raw is nobody's.
        servers.clear().await?;
        let running = shop.run(servers).await?;
        let began = Instant::now();
        raw::by_all_writers(ORDERS, || shop.place(&running.outbox)).await?;
        shop.settled().await?;
        let saga = rate(ORDERS, began.elapsed());
        running.stop().await?;
        if round > 0 {
            received.push(raw);
            sagas.push(saga);
        }
    }
    let (received, sagas) = (median(received), median(sagas));
    Ok(Goal {
        what: "complete order sagas",
        goal: ">= 0.6 of (raw inbox transactions / 3)",
        figures: vec![
            ("ours", sagas, "sagas/s"),
            ("raw inbox", received, "tx/s"),
            ("a third of it", received / 3.0, "/s"),
        ],
        result: sagas / (received / 3.0),
        bound: Bound::AtLeast(0.6),
    })
}

/// The two services' stores, and what there is to buy.
struct Shop {
    store: Store,
    database: Database,
    goods: Vec<Uuid>,
    quotes: HashMap<Uuid, Quote>,
    next: AtomicU64,
}

impl Shop {
    async fn open(servers: &Servers) -> Result<Self> {
        let stop = CancellationToken::new();
        let store = Store::new(servers.documents.clone(), Outbox::default());
        store.migrate(&stop).await?;
        store::migrate(&servers.items, &stop).await?;
        let sql = "INSERT INTO items (id, sku, name, price_amount, price_currency, stock_on_hand, created_at, updated_at)
            SELECT gen_random_uuid(), 'SKU-' || n, 'A chair', 1999, 'EUR', 1000000, now(), now() FROM generate_series(1, $1) AS n
            RETURNING id";
        let rows = servers.items.get().await?.all(sql, &[&ITEMS]).await?;
        let goods: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        let price = Money { amount: 1999, currency: "EUR".parse().map_err(|_| anyhow!("no euro"))? };
        let quote = Quote { sku: "SKU".into(), name: "A chair".into(), price };
        let quotes = goods.iter().map(|item| (*item, quote.clone())).collect();
        Ok(Self { store, database: servers.documents.clone(), goods, quotes, next: AtomicU64::new(0) })
    }

    /// Places an order for two items.
    async fn place(&self, outbox: &Outbox) -> Result<()> {
        let number = usize::try_from(self.next.fetch_add(1, Ordering::Relaxed))?;
        let item = |place: usize| self.goods.get(place % self.goods.len().max(1)).copied().context("nothing to buy");
        let lines = [item(number * 7)?, item(number * 7 + 3)?].map(|item_id| SelectedLine { item_id, quantity: 1 });
        let wrong = |invalid: Vec<domain::Invalid>| anyhow!("{invalid:?}");
        let contents = domain::price(&Selection::new(lines.into()).map_err(wrong)?, &self.quotes).map_err(wrong)?;
        let order = NewOrder { customer: "alice".into(), contents, patience: Patience::default() };
        let key = Uuid::now_v7().to_string();
        let request = RequestKey { principal: "alice".into(), key, fingerprint: [0; 32] };
        self.store.place(&order, &request, &Cause::default()).await?;
        outbox.wake();
        Ok(())
    }

    /// Waits until every saga has ended.
    async fn settled(&self) -> Result<()> {
        let client = self.database.get().await?;
        let sql = "SELECT EXISTS (SELECT FROM sagas WHERE due_at IS NOT NULL)";
        while client.one(sql, &[]).await?.get::<_, bool>(0) {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Runs relay and consumer of both services.
    async fn run(&self, servers: &Servers) -> Result<Running> {
        let stop = CancellationToken::new();
        let (ours, theirs) = (Outbox::default(), Outbox::default());
        let documents_events = Events::at(&servers.nats.url(), items::STREAM).await?;
        let items_events = Events::at(&servers.nats.url(), documents::STREAM).await?;
        let (one, two) = (servers.documents.clone(), servers.items.clone());
        let emitting = RelayOptions::emitting;
        let relays = [
            Relay::new(one.clone(), documents_events.clone(), ours.clone(), emitting(documents::EMITTED)),
            Relay::new(two.clone(), items_events.clone(), theirs.clone(), emitting(items::EMITTED)),
        ];
        let keeper = items::StockKeeper { clock: Clock::system() };
        let answers = Consumer::new(
            one,
            documents_events,
            ours.clone(),
            documents::STREAM,
            documents::SUBJECTS,
            documents::Answers,
        );
        let commands = Consumer::new(two, items_events, theirs.clone(), items::STREAM, items::SUBJECTS, keeper);
        let mut tasks = Vec::new();
        for relay in relays {
            let until = stop.clone();
            tasks.push(tokio::spawn(async move { relay.run(until).await }));
        }
        tasks.push(tokio::spawn(answers.run(stop.clone())));
        tasks.push(tokio::spawn(commands.run(stop.clone())));
        for database in [&servers.documents, &servers.items] {
            servers.led(database).await?;
        }
        servers.subscribed(documents::STREAM, items::STREAM).await?;
        servers.subscribed(items::STREAM, documents::STREAM).await?;
        Ok(Running { stop, tasks, outbox: ours })
    }
}

struct Running {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// That of the service which places orders.
    outbox: Outbox,
}

impl Running {
    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }
}
