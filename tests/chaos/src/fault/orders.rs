//! Clients who get in each other's way.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, anyhow};
use chacha20::ChaCha8Rng;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use super::{Scene, moment};
use crate::{
    clients::{create_item, new_key, order_of, told},
    history::{End, History, Line, Order, Told},
};

const RIVALS: usize = 24;
const LAST: i64 = 5;
/// How often it is tried while nobody is answered.
const ROUNDS: usize = 60;

/// Many want the last few of an item at the same moment.
pub(super) async fn quarrel(scene: &Scene<'_>, dice: &mut ChaCha8Rng) -> Result<String> {
    let item = create_item(scene.world, LAST, dice).await?;
    let keys: Vec<String> = (0..RIVALS).map(|_| new_key(dice)).collect();
    let orders = join_all(keys.into_iter().map(|key| order(scene, item, key, "wait=5"))).await;
    let confirmed = orders.iter().filter(|order| matches!(order.told, Told::Ended(_, End::Confirmed))).count();
    remember(scene, History { openings: [(item, LAST)].into(), orders, ..History::default() })?;
    Ok(format!("{RIVALS} wanted the last {LAST} of an item, {confirmed} were told they have one"))
}

/// An item is deleted while an order for it is on its way.
pub(super) async fn delete_item(scene: &Scene<'_>, dice: &mut ChaCha8Rng) -> Result<String> {
    let item = create_item(scene.world, LAST, dice).await?;
    let (first, second, pause) = (new_key(dice), new_key(dice), moment(dice, 0, 60));
    let deleted = async {
        sleep(pause).await;
        let path = format!("/items/{item}");
        scene.world.users.caller("carol").send(Method::DELETE, &path, &[("if-match", "*")], &Value::Null).await
    };
    let (deleted, first, second) =
        tokio::join!(deleted, order(scene, item, first, "wait=0"), order(scene, item, second, "wait=5"));
    let orders = vec![first, second];
    remember(scene, History { openings: [(item, LAST)].into(), orders, ..History::default() })?;
    let outcome = deleted.map_or_else(|_| "no answer".to_owned(), |answer| answer.status.to_string());
    Ok(format!("an item was deleted {pause:?} after it was ordered: {outcome}"))
}

/// Two different orders under one key, several times each and all at once: one of the two is placed, once.
pub(super) async fn same_key(scene: &Scene<'_>, dice: &mut ChaCha8Rng) -> Result<String> {
    let item = create_item(scene.world, LAST, dice).await?;
    let key = new_key(dice);
    let mut sides = [1, 2].map(|quantity| (vec![(item, quantity)], Vec::new()));
    // Until one of them is acknowledged: which one it was, nobody knows otherwise.
    for _ in 0..ROUNDS {
        let sent = sides.iter().flat_map(|(lines, _)| [lines; RIVALS / 4]);
        let answers = join_all(sent.map(|lines| order_of_lines(scene, lines, &key, "wait=5"))).await;
        for ((_, told), answers) in sides.iter_mut().zip(answers.chunks(RIVALS / 4)) {
            told.extend_from_slice(answers);
        }
        if sides.iter().flat_map(|(_, told)| told).any(|told| told.document().is_some()) {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    let mut history = History { openings: [(item, LAST)].into(), ..History::default() };
    let made: BTreeSet<Uuid> = sides.iter().flat_map(|(_, told)| told).filter_map(|told| told.document()).collect();
    let mut placed =
        sides.iter().filter_map(|(lines, told)| Some((lines, told.iter().rfind(|told| told.document().is_some())?)));
    let winner = placed.next();
    if made.len() > 1 || placed.next().is_some() {
        history.outrages.push(format!("two bodies under the key {key} were acknowledged as {made:?}"));
    }
    if let Some((lines, told)) = winner {
        history.orders.push(Order { key, lines: lines.clone(), told: *told });
    }
    let (count, orders) = (sides.iter().flat_map(|(_, told)| told).count(), made.len());
    remember(scene, history)?;
    Ok(format!("{count} requests under one key, with two bodies, made {orders} order"))
}

async fn order(scene: &Scene<'_>, item: Uuid, key: String, wait: &str) -> Order {
    let lines = vec![(item, 1)];
    let told = order_of_lines(scene, &lines, &key, wait).await;
    Order { key, lines, told }
}

async fn order_of_lines(scene: &Scene<'_>, lines: &[Line], key: &str, wait: &str) -> Told {
    let headers = [("idempotency-key", key), ("prefer", wait)];
    let answer = scene.world.users.caller("bob").send(Method::POST, "/documents", &headers, &order_of(lines)).await;
    answer.map_or(Told::Nothing, |answer| told(&answer))
}

fn remember(scene: &Scene<'_>, new: History) -> Result<()> {
    let mut history = scene.aftermath.history.lock().map_err(|_| anyhow!("another fault broke"))?;
    history.requests += new.orders.len() as u64;
    history.merge(new);
    Ok(())
}
