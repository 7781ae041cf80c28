use super::*;

fn record(number: u128) -> Record {
    Record {
        id: Uuid::from_u128(number),
        kind: "items.item.created".to_owned(),
        source: "spiffe://eshop.internal/item-management".to_owned(),
        subject: format!("item/{number}"),
        actor: (!number.is_multiple_of(3)).then(|| "carol".to_owned()),
        occurred_at: "2026-11-23T10:00:00.123456789Z".parse().unwrap(),
        content: format!("{{\"n\":{number}}}"),
    }
}

fn chain(length: u128) -> Vec<Entry> {
    let mut head = Head { seq: 0, hash: Hash::GENESIS };
    let append = |number| {
        let entry = Entry::append(head, "2026-11-23T10:00:01Z".parse().unwrap(), record(number));
        head = entry.as_head();
        entry
    };
    (1..=length).map(append).collect()
}

fn faults(entries: &[Entry], last: i64) -> Vec<Fault> {
    let mut walk = Walk::new(Head { seq: 0, hash: Hash::GENESIS }, last);
    walk.along(entries);
    walk.end();
    walk.result().1
}

/// The bytes as `docs/audit.md` has them, written down by hand.
#[test]
fn the_hash_is_over_the_documented_bytes() {
    let entry = &chain(1)[0];
    let mut bytes = b"berth-audit-entry-v1".to_vec();
    for text in [
        "1",
        "2026-11-23T10:00:01.000000Z",
        "00000000-0000-0000-0000-000000000001",
        "items.item.created",
        "spiffe://eshop.internal/item-management",
        "item/1",
        "carol",
        "2026-11-23T10:00:00.123456Z",
        r#"{"n":1}"#,
    ] {
        if text == "1" {
            bytes.extend([0, 0, 0, 0, 0, 0, 0, 32]);
            bytes.extend([0; 32]);
        }
        bytes.extend([0, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
        bytes.extend(text.as_bytes());
    }
    assert_eq!(entry.hash, Hash(Sha256::digest(bytes).into()));
    assert_eq!(entry.hash.to_string().len(), 64);
    assert_eq!(Hash::from_hex(&entry.hash.to_string()), Some(entry.hash));
}

#[test]
fn every_field_counts_and_none_runs_into_the_next() {
    let entry = chain(2).remove(1);
    let other = |change: fn(&mut Entry)| {
        let mut entry = entry.clone();
        change(&mut entry);
        entry.computed()
    };
    let mut hashes = vec![
        entry.hash,
        other(|entry| entry.seq += 1),
        other(|entry| entry.recorded_at = Timestamp::UNIX_EPOCH),
        other(|entry| entry.previous = Hash::GENESIS),
        other(|entry| entry.record.id = Uuid::nil()),
        other(|entry| entry.record.kind.push('x')),
        other(|entry| entry.record.source.insert(0, 'x')),
        other(|entry| entry.record.subject.push('x')),
        other(|entry| entry.record.actor = None),
        other(|entry| entry.record.actor = Some(String::new())),
        other(|entry| entry.record.occurred_at = Timestamp::UNIX_EPOCH),
        other(|entry| entry.record.content.push(' ')),
        other(|entry| {
            let moved = entry.record.kind.pop().unwrap();
            entry.record.source.insert(0, moved);
        }),
    ];
    let all = hashes.len();
    hashes.sort_by_key(|hash| hash.0);
    hashes.dedup();
    assert_eq!(hashes.len(), all);
}

#[test]
fn a_whole_chain_has_no_faults() {
    assert_eq!(faults(&chain(10), 10), []);
    assert_eq!(faults(&[], 0), []);
    let rest = &chain(10)[4..];
    let mut walk = Walk::new(chain(4)[3].as_head(), 10);
    walk.along(rest);
    walk.end();
    assert_eq!(walk.result(), (6, vec![]));
}

#[test]
fn what_was_done_to_a_chain_is_found_where_it_was_done() {
    let whole = chain(10);
    let tampered = |tamper: fn(&mut Vec<Entry>)| {
        let mut entries = whole.clone();
        tamper(&mut entries);
        faults(&entries, 10)
    };
    assert_eq!(tampered(|entries| entries[4].record.content = "{}".into()), [Fault::Changed { seq: 5 }]);
    assert_eq!(
        tampered(|entries| {
            entries[4].record.content = "{}".into();
            entries[4].hash = entries[4].computed();
        }),
        [Fault::Unlinked { seq: 6 }],
        "its hash was made anew"
    );
    assert_eq!(tampered(|entries| drop(entries.remove(4))), [Fault::Missing { first: 5, last: 5 }]);
    assert_eq!(tampered(|entries| entries.truncate(7)), [Fault::Missing { first: 8, last: 10 }]);
    assert_eq!(tampered(|entries| drop(entries.drain(..2))), [Fault::Missing { first: 1, last: 2 }]);
    let swapped = tampered(|entries| {
        let (five, six) = (entries[4].record.clone(), entries[5].record.clone());
        (entries[4].record, entries[5].record) = (six, five);
    });
    assert_eq!(swapped, [Fault::Changed { seq: 5 }, Fault::Changed { seq: 6 }]);
    let swapped_whole = tampered(|entries| {
        entries.swap(4, 5);
        (entries[4].seq, entries[5].seq) = (5, 6);
    });
    assert_eq!(
        swapped_whole,
        [
            Fault::Changed { seq: 5 },
            Fault::Unlinked { seq: 5 },
            Fault::Changed { seq: 6 },
            Fault::Unlinked { seq: 6 },
            Fault::Unlinked { seq: 7 }
        ]
    );
    let inserted = tampered(|entries| {
        let forged = Entry::append(entries[4].as_head(), Timestamp::UNIX_EPOCH, record(99));
        entries.insert(5, forged);
        entries.iter_mut().skip(6).for_each(|entry| entry.seq += 1);
        entries.pop();
    });
    assert_eq!(inserted[..2], [Fault::Changed { seq: 7 }, Fault::Unlinked { seq: 7 }]);
}

#[test]
fn a_hopeless_chain_is_not_walked_to_the_end() {
    let mut walk = Walk::new(Head { seq: 0, hash: Hash::GENESIS }, 1000);
    let mut entries = chain(200);
    entries.iter_mut().for_each(|entry| entry.record.content.clear());
    walk.along(&entries);
    assert_eq!((walk.position(), walk.result().1.len()), (101, MAX_FAULTS));
}
