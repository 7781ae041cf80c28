//! Somebody with all rights over the database changes it. It is found, and located.

use serde_json::{Value, json};

use crate::world::{World, dave};

/// Takes the guards away, as the owner of the table can.
const UNGUARD: &str = "ALTER TABLE entries DISABLE TRIGGER USER;";

/// Moves entries to other numbers, by way of numbers that are free.
fn renumber(from: &str, shift: i64) -> String {
    format!(
        "UPDATE entries SET seq = seq + 1000000 WHERE {from};
         UPDATE entries SET seq = seq - 1000000 + {shift} WHERE seq > 1000000;"
    )
}

async fn tampered(entries: usize, sql: &str) -> Value {
    let world = World::with_entries(entries).await;
    assert_eq!(world.verify("").await["verified"], true);
    world.intruder.batch_execute(&format!("{UNGUARD} {sql}")).await.unwrap();
    let verification = world.verify("").await;
    assert_eq!(verification["verified"], false, "{verification:#}");
    verification["faults"].clone()
}

#[tokio::test]
async fn a_changed_entry_is_found() {
    for column in [
        "type = 'items.item.deleted'",
        "actor = 'bob'",
        "actor = NULL",
        "content = '{}'",
        "subject = 'x'",
        "recorded_at = recorded_at + interval '1 microsecond'",
        "occurred_at = now()",
        "id = gen_random_uuid()",
        "source = 'x'",
    ] {
        let faults = tampered(9, &format!("UPDATE entries SET {column} WHERE seq = 5")).await;
        assert_eq!(faults, json!([{ "fault": "changed", "seq": 5 }]), "{column}");
    }
}

#[tokio::test]
async fn a_removed_entry_is_found() {
    let faults = tampered(9, "DELETE FROM entries WHERE seq IN (4, 5)").await;
    assert_eq!(faults, json!([{ "fault": "missing", "first": 4, "last": 5 }]));
    let closed = format!("DELETE FROM entries WHERE seq = 5; {}", renumber("seq > 5", -1));
    let faults = tampered(9, &closed).await;
    assert_eq!(faults[0], json!({ "fault": "changed", "seq": 5 }), "{faults:#}");
    assert_eq!(faults[1], json!({ "fault": "unlinked", "seq": 5 }), "{faults:#}");
}

#[tokio::test]
async fn an_inserted_entry_is_found() {
    let copy = |seq: i64| {
        format!(
            "INSERT INTO entries SELECT {seq}, recorded_at, gen_random_uuid(), type, source, subject, 'bob', occurred_at, content,
             previous, hash FROM entries WHERE seq = 4;"
        )
    };
    let faults = tampered(9, &format!("{} {}", renumber("seq > 5", 1), copy(6))).await;
    assert_eq!(faults[0], json!({ "fault": "changed", "seq": 6 }), "{faults:#}");
    let faults = tampered(9, &copy(10)).await;
    assert_eq!(faults, json!([{ "fault": "surplus", "first": 10, "last": 10 }]));
}

#[tokio::test]
async fn exchanged_entries_are_found() {
    let swap = "UPDATE entries SET seq = 1000005 WHERE seq = 5; UPDATE entries SET seq = 5 WHERE seq = 6; UPDATE entries SET seq = 6 WHERE seq = 1000005;";
    let faults = tampered(9, swap).await;
    let places: Vec<_> = faults.as_array().unwrap().iter().map(|fault| fault["seq"].as_i64().unwrap()).collect();
    assert_eq!(places, [5, 5, 6, 6, 7], "{faults:#}");
}

#[tokio::test]
async fn a_shortened_chain_is_found() {
    let faults = tampered(9, "DELETE FROM entries WHERE seq > 6").await;
    assert_eq!(faults, json!([{ "fault": "missing", "first": 7, "last": 9 }]));
}

/// The end that the database remembers is shortened as well: only who kept a checkpoint knows.
#[tokio::test]
async fn a_chain_that_was_shortened_without_a_trace_is_found_by_a_checkpoint() {
    let world = World::with_entries(9).await;
    let kept = world.get(&dave(), "/audit/checkpoint").await.expect(200).body;
    let query = format!("?checkpoint={}", kept["signed"].as_str().unwrap());
    assert_eq!(world.verify(&query).await["verified"], true);
    let sql = "DELETE FROM entries WHERE seq > 6;
        UPDATE chain_head SET (seq, hash) = (SELECT seq, hash FROM entries WHERE seq = 6);";
    world.intruder.batch_execute(&format!("{UNGUARD} {sql}")).await.unwrap();
    assert_eq!(world.verify("").await["verified"], true, "the chain by itself is whole");
    let verification = world.verify(&query).await;
    assert_eq!(verification["faults"], json!([{ "fault": "missing", "first": 7, "last": 9 }]), "{verification:#}");
    world.record(5).await;
    let verification = world.verify(&query).await;
    assert_eq!(verification["faults"], json!([{ "fault": "rewritten", "seq": 9 }]), "it went on, but not from there");
    let verification = world.verify("?from=2&to=4").await;
    assert_eq!((&verification["verified"], &verification["entries"]), (&json!(true), &json!(3)));
}

#[tokio::test]
async fn a_chain_full_of_faults_is_told_in_parts() {
    let world = World::with_entries(250).await;
    world.intruder.batch_execute(&format!("{UNGUARD} UPDATE entries SET actor = 'bob'")).await.unwrap();
    let (mut from, mut places) = (1, Vec::new());
    loop {
        let verification = world.verify(&format!("?from={from}")).await;
        places.extend(verification["faults"].as_array().unwrap().iter().map(|fault| fault["seq"].as_i64().unwrap()));
        match verification["next"].as_i64() {
            Some(next) => from = next,
            None => break,
        }
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places, (1..=250).collect::<Vec<_>>());
}
