//! Messages that come again, too late, or that nobody can handle.

use anyhow::{Context as _, Result};
use chacha20::ChaCha8Rng;
use rand::{RngExt as _, seq::SliceRandom as _};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Scene, either_side, new_id, other};
use crate::world::World;

const UNIT: &str = "nats";
/// Old messages that are published once more in one strike.
const REPEATED: u64 = 40;

/// A message that was injected and can never be handled.
#[derive(Debug)]
pub struct Poison {
    /// Stands in its payload and nowhere else.
    marker: String,
    event: Option<Uuid>,
}

impl Poison {
    /// Whether this payload is it.
    pub fn is(&self, payload: &[u8]) -> bool {
        payload.windows(self.marker.len()).any(|window| window == self.marker.as_bytes())
    }

    /// Its event's id, if it is an event at all.
    pub fn event(&self) -> Option<Uuid> {
        self.event
    }
}

/// Publishes old messages again, the youngest first and without the ids by which the server knows duplicates.
pub(super) async fn repeat(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (service, _) = either_side(dice);
    let _claims = world.claim(&[UNIT]).await?;
    let stream = world.bus.stream(service).await?;
    let state = stream.cached_info().state.clone();
    let mut old = Vec::new();
    for _ in 0..REPEATED.min(state.messages) {
        let sequence = dice.random_range(state.first_sequence..=state.last_sequence);
        let message = stream.get_raw_message(sequence).await.with_context(|| format!("no message {sequence}"))?;
        old.push((sequence, message.subject.to_string(), message.payload.to_vec()));
    }
    old.sort_by_key(|(sequence, ..)| std::cmp::Reverse(*sequence));
    let count = old.len();
    for (_, subject, payload) in old {
        world.bus.publish(&subject, payload).await?;
    }
    Ok(format!("{count} old messages of {service} were published again, the youngest first"))
}

pub(super) async fn deliver_all_again(world: &World, dice: &mut ChaCha8Rng) -> Result<String> {
    let (service, _) = either_side(dice);
    let _claims = world.claim(&[UNIT]).await?;
    let other = other(service);
    let stream = world.bus.stream(service).await?;
    stream.delete_consumer(other).await?;
    world.bus.made_anew(service, other).await?;
    Ok(format!("{other} hears all {} messages of {service} again", stream.cached_info().state.messages))
}

/// What is no event at all, an event nobody has heard of, and one about a saga that does not exist.
pub(super) async fn poison(scene: &Scene<'_>, dice: &mut ChaCha8Rng) -> Result<String> {
    let mut kinds = ["nonsense", "no such command", "no such saga", "wrong data"];
    kinds.shuffle(dice);
    let [kind, ..] = kinds;
    let id = new_id(dice);
    match kind {
        "nonsense" => {
            let marker = format!("poison {id}");
            publish(scene, "documents.stock.reserve", marker.clone().into_bytes(), Poison { marker, event: None })
                .await?;
        }
        "no such command" => inject(scene, "documents.stock.explode", id, 1, Value::Null).await?,
        "no such saga" => inject(scene, "items.reservation.taken", id, 1, json!({ "order_id": id })).await?,
        _ => inject(scene, "documents.stock.take", id, 1, json!({ "order_id": 7 })).await?,
    }
    Ok(format!("a message was injected: {kind}"))
}

pub(super) async fn unknown_version(scene: &Scene<'_>, dice: &mut ChaCha8Rng) -> Result<String> {
    let id = new_id(dice);
    let subject = if dice.random() { "documents.stock.take" } else { "items.reservation.taken" };
    inject(scene, subject, id, 99, json!({ "order_id": id })).await?;
    Ok(format!("{subject} was injected with version 99 of its data"))
}

/// Publishes a well-formed event of an aggregate that nobody has heard of.
async fn inject(scene: &Scene<'_>, subject: &str, id: Uuid, data_version: i32, data: Value) -> Result<()> {
    let kind = subject.split('.').nth(1).context("a subject has three parts")?;
    let event = json!({
        "specversion": "1.0", "id": id, "source": "chaos", "type": subject, "time": jiff::Timestamp::now(),
        "aggregatetype": kind, "aggregateid": id, "aggregateversion": 1, "dataversion": data_version, "data": data,
    });
    let poison = Poison { marker: id.to_string(), event: Some(id) };
    publish(scene, subject, serde_json::to_vec(&event)?, poison).await
}

async fn publish(scene: &Scene<'_>, subject: &str, payload: Vec<u8>, poison: Poison) -> Result<()> {
    let _claims = scene.world.claim(&[UNIT]).await?;
    // Before it is sent: an answer may be lost.
    scene.aftermath.poison.lock().map_err(|_| anyhow::anyhow!("another fault broke"))?.push(poison);
    scene.world.bus.publish(subject, payload).await?;
    Ok(())
}
