use proptest::{collection::btree_map, prelude::*};
use serde_json::{Value, from_value, json};

use super::*;

#[track_caller]
fn accepts<T: for<'a> Deserialize<'a>>(values: &[Value]) {
    for value in values {
        if let Err(error) = from_value::<T>(value.clone()) {
            panic!("{value} was refused: {error}");
        }
    }
}

#[track_caller]
fn refuses<T: for<'a> Deserialize<'a>>(values: &[Value], rule: &str) {
    for value in values {
        match from_value::<T>(value.clone()) {
            Ok(_) => panic!("{value} was accepted"),
            Err(error) => assert!(error.to_string().contains(rule), "{value}: {error}"),
        }
    }
}

#[test]
fn a_sku_is_a_short_plain_code() {
    accepts::<Sku>(&[json!("A"), json!("7"), json!("mug-red_01.b"), json!("x".repeat(64))]);
    let bad = [
        json!(""),
        json!("-a"),
        json!(".a"),
        json!("a b"),
        json!("ä"),
        json!("a/b"),
        json!("a\0"),
        json!("x".repeat(65)),
    ];
    refuses::<Sku>(&bad, "must be 1 to 64 letters");
    refuses::<Sku>(&[json!(1), json!(null), json!(["a"])], "expected a string");
}

#[test]
fn texts_are_not_blank_not_long_and_hold_no_control_characters() {
    accepts::<Name>(&[json!("a"), json!("Größe – ☃"), json!("é".repeat(200))]);
    refuses::<Name>(&[json!(""), json!("  \t"), json!("\n")], "blank");
    refuses::<Name>(&[json!("é".repeat(201))], "at most 200 characters");
    refuses::<Name>(&[json!("a\0"), json!("a\nb"), json!("a\u{7f}b"), json!("a\u{85}b")], "control");
    accepts::<Description>(&[json!("one\r\n\ttwo"), json!("x".repeat(4000))]);
    refuses::<Description>(&[json!("a\0"), json!("a\u{1b}b")], "control");
    refuses::<Description>(&[json!("x".repeat(4001))], "at most 4000 characters");
    refuses::<Reason>(&[json!("x".repeat(501))], "at most 500 characters");
}

#[test]
fn a_currency_is_one_of_iso_4217() {
    accepts::<Currency>(&[json!("EUR"), json!("JPY"), json!("KWD")]);
    refuses::<Currency>(&[json!("eur"), json!("EURO"), json!("QQQ"), json!(""), json!("EUR ")], "ISO 4217");
}

#[test]
fn numbers_are_whole_and_in_range() {
    accepts::<Amount>(&[json!(0), json!(MAX_AMOUNT)]);
    refuses::<Amount>(
        &[json!(-1), json!(MAX_AMOUNT + 1), json!(i64::MIN), json!(i64::MAX)],
        "from 0 to 9007199254740991",
    );
    refuses::<Amount>(&[json!(1.5), json!(1e3), json!("1"), json!(u64::MAX), json!(null)], "expected i64");
    accepts::<Quantity>(&[json!(1), json!(MAX_STOCK)]);
    refuses::<Quantity>(&[json!(0), json!(-1), json!(MAX_STOCK + 1)], "from 1 to 1000000000");
    accepts::<OpeningStock>(&[json!(0), json!(MAX_STOCK)]);
    refuses::<OpeningStock>(&[json!(-1), json!(MAX_STOCK + 1)], "from 0 to 1000000000");
    accepts::<Change>(&[json!(1), json!(-1), json!(MAX_STOCK), json!(-MAX_STOCK)]);
    refuses::<Change>(&[json!(0), json!(MAX_STOCK + 1), json!(-MAX_STOCK - 1), json!(i64::MIN)], "and not 0");
}

#[test]
fn search_words_are_parted_at_punctuation() {
    let words = |text: &str| {
        let search = Search::try_from(text.to_owned()).unwrap();
        search.words().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(words("  Red   mug "), ["Red", "mug"]);
    assert_eq!(words("mug-red_01.b"), ["mug", "red", "01", "b"]);
    assert_eq!(words(r"a'b\c&d|!e:*(f)"), ["a", "b", "c", "d", "e", "f"]);
    refuses::<Search>(&[json!("--"), json!("☃"), json!("'\\")], "letter or a digit");
    refuses::<Search>(&[json!(" ")], "blank");
}

fn an_item() -> Item {
    Item {
        id: Uuid::from_u128(1),
        sku: from_value(json!("MUG")).unwrap(),
        name: from_value(json!("Mug")).unwrap(),
        description: Some(from_value(json!("Holds tea.")).unwrap()),
        price: from_value(json!({"amount": 500, "currency": "EUR"})).unwrap(),
        stock_on_hand: 10,
        stock_reserved: 4,
        stock_available: 6,
        version: 1,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

/// RFC 7396: left out stays, null removes, objects merge.
#[test]
fn a_patch_merges() {
    let item = an_item();
    let merged = |patch: Value| {
        let (name, description, price) = from_value::<ItemPatch>(patch).unwrap().applied(&item);
        json!([name, description, price.amount, price.currency])
    };
    for (patch, expected) in [
        (json!({}), json!(["Mug", "Holds tea.", 500, "EUR"])),
        (json!({"name": "Cup"}), json!(["Cup", "Holds tea.", 500, "EUR"])),
        (json!({"description": null}), json!(["Mug", null, 500, "EUR"])),
        (json!({"description": "Holds more."}), json!(["Mug", "Holds more.", 500, "EUR"])),
        (json!({"price": {}}), json!(["Mug", "Holds tea.", 500, "EUR"])),
        (json!({"price": {"amount": 0}}), json!(["Mug", "Holds tea.", 0, "EUR"])),
        (json!({"price": {"currency": "CHF"}}), json!(["Mug", "Holds tea.", 500, "CHF"])),
        (json!({"name": "Cup", "price": {"amount": 1, "currency": "JPY"}}), json!(["Cup", "Holds tea.", 1, "JPY"])),
    ] {
        assert_eq!(merged(patch.clone()), expected, "{patch}");
    }
}

#[test]
fn a_patch_cannot_remove_what_an_item_needs_nor_name_what_it_has_not() {
    for patch in [json!({"name": null}), json!({"price": {"currency": null}})] {
        refuses::<ItemPatch>(&[patch], "null, expected a string");
    }
    refuses::<ItemPatch>(&[json!({"price": {"amount": null}})], "null, expected i64");
    refuses::<ItemPatch>(&[json!({"price": null}), json!({"price": 5})], "expected struct PricePatch");
    refuses::<ItemPatch>(
        &[json!({"sku": "X"}), json!({"stock_on_hand": 1}), json!({"price": {"x": 1}})],
        "unknown field",
    );
}

#[test]
fn adjustments_respect_what_is_reserved_and_the_maximum() {
    let stock = Stock::new(10, 4).unwrap();
    let adjusted = |change: i64| stock.adjusted(Change::try_from(change).unwrap());
    assert_eq!(adjusted(5), Ok(Stock { on_hand: 15, reserved: 4 }));
    assert_eq!(adjusted(-6), Ok(Stock { on_hand: 4, reserved: 4 }));
    assert_eq!(adjusted(-7), Err(StockError::BelowReserved { left: 3, reserved: 4 }));
    assert_eq!(adjusted(-MAX_STOCK), Err(StockError::BelowReserved { left: 10 - MAX_STOCK, reserved: 4 }));
    assert_eq!(adjusted(MAX_STOCK - 10), Ok(Stock { on_hand: MAX_STOCK, reserved: 4 }));
    assert_eq!(adjusted(MAX_STOCK - 9), Err(StockError::AboveMaximum));
    // Returns may have brought more than the maximum; the way down stays open.
    let full = Stock::new(MAX_STOCK + 5, 0).unwrap();
    assert_eq!(full.adjusted(Change(-1)), Ok(Stock { on_hand: MAX_STOCK + 4, reserved: 0 }));
}

#[test]
fn stock_never_leaves_its_bounds() {
    assert_eq!(Stock::new(-1, 0), None);
    assert_eq!(Stock::new(1, 2), None);
    assert_eq!(Stock::new(1, -1), None);
    let stock = Stock::new(5, 2).unwrap();
    assert_eq!(stock.reserve(4), Err(StockError::Insufficient { available: 3 }));
    assert_eq!(stock.reserve(i64::MAX), Err(StockError::Insufficient { available: 3 }));
    assert_eq!(stock.release(3), Err(StockError::Inconsistent));
    assert_eq!(stock.take(3), Err(StockError::Inconsistent));
    assert_eq!(stock.put_back(i64::MAX), Err(StockError::Inconsistent));
}

/// Every command in every state.
#[test]
fn the_table_of_commands() {
    use Command::{Disown, Release, Reserve, Return, Take};
    use ReservationState::{Held, Refused, Released, Taken};
    let table = [
        (Reserve, [Step::Hold, Step::Repeat, Step::Repeat, Step::Repeat, Step::Repeat]),
        (Take, [Step::Bury, Step::Take, Step::Repeat, Step::Decline, Step::Decline]),
        (Release, [Step::Bury, Step::Release, Step::Decline, Step::Repeat, Step::Repeat]),
        (Disown, [Step::Bury, Step::Release, Step::GiveBack, Step::Repeat, Step::Repeat]),
        (Return, [Step::Wait, Step::Wait, Step::PutBack, Step::Decline, Step::Decline]),
    ];
    for (command, steps) in table {
        for (state, step) in [None, Some(Held), Some(Taken), Some(Released), Some(Refused)].into_iter().zip(steps) {
            assert_eq!(decide(command, state), step, "{command:?} in {state:?}");
        }
    }
}

fn line(item: u128, quantity: i64) -> Line {
    Line { item_id: Uuid::from_u128(item), quantity }
}

#[test]
fn lines_of_one_item_are_added_up_in_the_order_of_ids() {
    let lines = OrderLines::try_from(vec![line(2, 3), line(1, 1), line(2, MAX_STOCK)]).unwrap();
    let expected = [(Uuid::from_u128(1), 1), (Uuid::from_u128(2), MAX_STOCK + 3)];
    assert_eq!(lines.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn impossible_lines_are_refused_with_their_place() {
    let refused = |lines: Vec<Line>| OrderLines::try_from(lines).unwrap_err().to_string();
    assert_eq!(refused(vec![]), "lines: must be 1 to 100, not 0");
    assert_eq!(refused(vec![line(1, 1); 101]), "lines: must be 1 to 100, not 101");
    for quantity in [0, -1, i64::MIN, MAX_STOCK + 1, i64::MAX] {
        assert!(refused(vec![line(1, 1), line(2, quantity)]).starts_with("lines[1].quantity: "), "{quantity}");
    }
}

#[test]
fn a_refusal_names_every_line_and_the_graver_reason() {
    let shelf = Shelf::from([
        (Uuid::from_u128(1), Stock { on_hand: 5, reserved: 4 }),
        (Uuid::from_u128(2), Stock { on_hand: 9, reserved: 0 }),
    ]);
    let lines = OrderLines::try_from(vec![line(3, 1), line(2, 9), line(1, 2)]).unwrap();
    let refusal = reserve(&lines, &shelf).unwrap_err();
    assert_eq!(
        serde_json::to_value(refusal).unwrap(),
        json!({"reason": "unknown-item", "lines": [
            {"item_id": Uuid::from_u128(1), "requested": 2, "available": 1},
            {"item_id": Uuid::from_u128(3), "requested": 1, "available": 0},
        ]})
    );
    let lines = OrderLines::try_from(vec![line(1, 2)]).unwrap();
    assert_eq!(reserve(&lines, &shelf).unwrap_err().reason, RefusalReason::InsufficientStock);
}

fn stocks() -> impl Strategy<Value = Stock> {
    (0..=20_i64).prop_flat_map(|on_hand| (0..=on_hand).prop_map(move |reserved| Stock { on_hand, reserved }))
}

proptest! {
    /// All lines or none; what is promised is what was asked for; nothing leaves the house.
    #[test]
    fn reserving_is_all_or_nothing(
        shelf in btree_map((0..6_u128).prop_map(Uuid::from_u128), stocks(), 0..6),
        lines in prop::collection::vec((0..6_u128, 1..8_i64), 1..8),
    ) {
        let lines: Vec<Line> = lines.into_iter().map(|(item, quantity)| line(item, quantity)).collect();
        let asked = |id: Uuid| lines.iter().filter(|line| line.item_id == id).map(|line| line.quantity).sum::<i64>();
        let ordered = OrderLines::try_from(lines.clone()).unwrap();
        match reserve(&ordered, &shelf) {
            Ok(after) => {
                prop_assert_eq!(after.keys().copied().collect::<Vec<_>>(), ordered.items());
                for (id, stock) in after {
                    let before = shelf[&id];
                    prop_assert_eq!(stock.on_hand, before.on_hand);
                    prop_assert_eq!(stock.reserved, before.reserved + asked(id));
                    prop_assert!(stock.reserved <= stock.on_hand);
                }
            }
            Err(refusal) => {
                let short: Vec<Uuid> = ordered.items().into_iter()
                    .filter(|id| shelf.get(id).is_none_or(|stock| stock.available() < asked(*id)))
                    .collect();
                prop_assert!(!short.is_empty());
                prop_assert_eq!(refusal.lines.iter().map(|line| line.item_id).collect::<Vec<_>>(), short);
                prop_assert!(refusal.lines.iter().all(|line| line.requested == asked(line.item_id) && line.available < line.requested));
            }
        }
    }

    /// What was reserved can always be released, or taken and put back, and then all is as before.
    #[test]
    fn stock_is_conserved(before in stocks(), quantity in 1..20_i64) {
        if let Ok(held) = before.reserve(quantity) {
            prop_assert_eq!(held.release(quantity), Ok(before));
            let taken = held.take(quantity).unwrap();
            prop_assert_eq!(taken.on_hand, before.on_hand - quantity);
            prop_assert_eq!(taken.put_back(quantity), Ok(before));
        }
    }
}
