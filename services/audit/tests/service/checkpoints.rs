//! The event bus remembers the end of the chain.

use audit::{checkpoint, messages};
use outbox::{Events, Outbox, Relay, RelayOptions};
use serde_json::json;
use testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::world::World;

#[tokio::test]
async fn what_the_event_bus_remembers_cannot_be_cut_off_unnoticed() {
    let mut world = World::with_entries(9).await;
    let (stop, outbox) = (CancellationToken::new(), Outbox::default());
    let events = Events::at(&world.nats.url(), "audit").await.unwrap();
    let relay =
        Relay::new(world.database.clone(), events.clone(), outbox.clone(), RelayOptions::emitting(messages::EMITTED));
    let until = stop.clone();
    let relaying = tokio::spawn(async move { relay.run(until).await });
    let tell = async || checkpoint::tell(&world.database, &outbox, &world.signer).await.unwrap();
    tell().await;
    tell().await;
    assert_eq!(world.count("outbox").await, 1, "the same end is told once");
    eventually("the event bus to remember the checkpoint", async || {
        let remembered = world.signer.remembered_by(&events).await.ok()??;
        (remembered.seq == 9).then_some(())
    })
    .await;
    let verification = world.verify("").await;
    assert_eq!(verification["verified"], true, "{verification:#}");
    assert_eq!(verification["checkpoints"], json!([{ "remembered_by": "event-bus", "seq": 9 }]));

    let sql = "ALTER TABLE entries DISABLE TRIGGER USER; DELETE FROM entries WHERE seq > 6;
        UPDATE chain_head SET (seq, hash) = (SELECT seq, hash FROM entries WHERE seq = 6);";
    world.intruder.batch_execute(sql).await.unwrap();
    let verification = world.verify("").await;
    assert_eq!(verification["faults"], json!([{ "fault": "missing", "first": 7, "last": 9 }]), "{verification:#}");

    stop.cancel();
    relaying.await.unwrap();
    world.nats.kill();
    let verification = world.verify("").await;
    assert!(verification["checkpoints"][0]["unavailable"].is_string(), "{verification:#}");
}
