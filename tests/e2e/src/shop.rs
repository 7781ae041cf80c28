//! What one does in the shop, over and over: create an item, place an order, read the stock.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::{eventually, eventually_within};

use crate::{Answer, Caller, Mesh};

/// The people of the shop, logged in.
#[derive(Debug, Clone)]
pub struct Shop {
    /// May order.
    pub alice: Caller,
    /// May order; sees nothing of alice's.
    pub bob: Caller,
    /// May keep items and write invoices.
    pub carol: Caller,
    /// May nothing.
    pub mallory: Caller,
}

fn new_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// On hand and reserved, in an item.
fn stock_in(item: &Answer) -> (i64, i64) {
    (item.number("/stock_on_hand"), item.number("/stock_reserved"))
}

impl Shop {
    /// Logs everybody in.
    pub fn open(mesh: &Mesh) -> Self {
        Self {
            alice: mesh.user("alice"),
            bob: mesh.user("bob"),
            carol: mesh.user("carol"),
            mallory: mesh.user("mallory"),
        }
    }

    /// Creates an item with so much stock at 19.99 EUR, and returns its id.
    pub async fn item(&self, stock: i64) -> String {
        let sku = format!("SKU-{:016x}", rand::random::<u64>());
        let item = json!({
            "sku": sku, "name": "A chair", "price": { "amount": 1999, "currency": "EUR" }, "stock_on_hand": stock,
        });
        self.carol.post("/items", &item).await.expect(201).text("/id").to_owned()
    }

    /// On hand and reserved, in pieces.
    pub async fn stock(&self, item: &str) -> (i64, i64) {
        stock_in(&self.carol.get(&format!("/items/{item}")).await.expect(200))
    }

    /// The body of an order for one item.
    pub fn order_of(item: &str, quantity: i64) -> Value {
        json!({ "kind": "order", "lines": [{ "item_id": item, "quantity": quantity }] })
    }

    /// Alice orders under a new key, and waits for the outcome at most so many seconds (0: not at all).
    pub async fn order(&self, item: &str, quantity: i64, wait: u32) -> Answer {
        let request = self
            .alice
            .request(Method::POST, "/documents")
            .header("idempotency-key", new_key())
            .json(&Self::order_of(item, quantity));
        Answer::of(if wait == 0 { request } else { request.header("prefer", format!("wait={wait}")) }).await
    }

    /// Alice orders, whatever happens meanwhile: under one key until the outcome is known, anew when the order was cancelled by its
    /// deadline. When this returns, exactly one order of hers is confirmed.
    pub async fn order_surely(&self, item: &str, quantity: i64) {
        let patience = Duration::from_secs(90);
        let mut key = new_key();
        eventually_within(patience, "an order to be confirmed", async || {
            let request = self.alice.request(Method::POST, "/documents").header("idempotency-key", &key);
            let answer = Answer::try_of(request.json(&Self::order_of(item, quantity))).await.ok()?;
            let location = match answer.status.as_u16() {
                201 | 202 => answer.header("location").to_owned(),
                _ => return None,
            };
            match self.decided(&location).await? {
                true => Some(()),
                false => {
                    key = new_key();
                    None
                }
            }
        })
        .await;
    }

    /// Whether the order at this path was confirmed; nothing while that is open.
    async fn decided(&self, location: &str) -> Option<bool> {
        let answer = self.alice.try_get(location).await.ok()?;
        match answer.body.get("state").and_then(Value::as_str)? {
            "PENDING" => None,
            state => Some(state == "CONFIRMED"),
        }
    }

    /// Waits until a document is in this state.
    pub async fn reaches(&self, document: &str, state: &str) {
        eventually(&format!("document {document} to be {state}"), async || {
            let answer = self.carol.try_get(&format!("/documents/{document}")).await.ok()?;
            (answer.status == 200 && answer.text("/state") == state).then_some(())
        })
        .await;
    }

    /// Waits until so much of an item is on hand and so much reserved.
    pub async fn stock_becomes(&self, item: &str, stock: (i64, i64)) {
        eventually(&format!("the stock of {item} to be {stock:?}"), async || {
            let answer = self.carol.try_get(&format!("/items/{item}")).await.ok()?;
            (answer.status == 200 && stock_in(&answer) == stock).then_some(())
        })
        .await;
    }
}
