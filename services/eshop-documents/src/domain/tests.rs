//! Totals and credit limits hold for whatever is thrown at them; the states allow what they should.

use proptest::{collection::vec, prelude::*};

use super::*;

fn item(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn euros(amount: i64) -> Money {
    Money { amount, currency: "EUR".parse().unwrap() }
}

fn selection(quantities: &[i64]) -> Selection {
    let lines = quantities.iter().zip(0..).map(|(&quantity, n)| SelectedLine { item_id: item(n), quantity }).collect();
    Selection::new(lines).unwrap()
}

fn quotes(prices: &[Money]) -> HashMap<Uuid, Quote> {
    let quote = |&price: &Money| Quote { sku: "SKU".into(), name: "A chair".into(), price };
    (0..).map(item).zip(prices.iter().map(quote)).collect()
}

fn pointers(invalid: &[Invalid]) -> Vec<&str> {
    invalid.iter().map(|invalid| invalid.pointer.as_str()).collect()
}

#[test]
fn a_selection_names_every_line_that_breaks_a_rule() {
    let line = |n, quantity| SelectedLine { item_id: item(n), quantity };
    let invalid =
        Selection::new(vec![line(1, 1), line(2, 0), line(1, 3), line(3, MAX_QUANTITY + 1), line(4, -1)]).unwrap_err();
    assert_eq!(pointers(&invalid), ["/lines/1/quantity", "/lines/2/item_id", "/lines/3/quantity", "/lines/4/quantity"]);
    for lines in [0, MAX_LINES + 1] {
        let lines = (0..lines).map(|n| line(n as u128, 1)).collect();
        assert_eq!(pointers(&Selection::new(lines).unwrap_err()), ["/lines"]);
    }
    assert!(Selection::new((0..MAX_LINES).map(|n| line(n as u128, MAX_QUANTITY)).collect()).is_ok());
}

#[test]
fn every_unknown_item_is_named() {
    let mut known = quotes(&[euros(1), euros(1), euros(1)]);
    known.remove(&item(0));
    known.remove(&item(2));
    assert_eq!(pointers(&price(&selection(&[1, 1, 1]), &known).unwrap_err()), ["/lines/0/item_id", "/lines/2/item_id"]);
}

#[test]
fn an_order_has_one_currency() {
    let yen = Money { amount: 100, currency: "JPY".parse().unwrap() };
    let invalid = price(&selection(&[1, 1, 1]), &quotes(&[euros(1), yen, euros(2)])).unwrap_err();
    assert_eq!(pointers(&invalid), ["/lines/1/item_id"]);
    assert!(invalid[0].message.contains("JPY") && invalid[0].message.contains("EUR"), "{invalid:?}");
}

#[test]
fn a_total_that_cannot_be_written_down_names_its_line() {
    for (prices, quantities, line) in [
        (vec![euros(1), euros(MAX_AMOUNT)], vec![1, 1], "/lines/1/quantity"),
        (vec![euros(MAX_AMOUNT)], vec![2], "/lines/0/quantity"),
        (vec![euros(i64::MAX)], vec![MAX_QUANTITY], "/lines/0/quantity"),
        (vec![euros(MAX_AMOUNT - 1), euros(1), euros(1)], vec![1, 1, 1], "/lines/2/quantity"),
    ] {
        assert_eq!(pointers(&price(&selection(&quantities), &quotes(&prices)).unwrap_err()), [line]);
    }
    assert_eq!(price(&selection(&[1]), &quotes(&[euros(MAX_AMOUNT)])).unwrap().total.amount, MAX_AMOUNT);
}

#[test]
fn a_currency_is_three_capital_letters() {
    for wrong in ["", "EU", "EURO", "eur", "EÜ", "12€"] {
        assert!(wrong.parse::<Currency>().is_err(), "{wrong}");
    }
    assert_eq!("EUR".parse::<Currency>().unwrap().to_string(), "EUR");
}

#[test]
fn patience_is_a_second_to_a_day() {
    assert_eq!("45".parse::<Patience>().unwrap().get(), Duration::from_secs(45));
    for wrong in ["", "0", "-1", "1.5", "86401", "30s"] {
        assert!(wrong.parse::<Patience>().is_err(), "{wrong}");
    }
}

#[test]
fn what_is_not_on_the_invoice_cannot_be_credited() {
    let invoice = price(&selection(&[2]), &quotes(&[euros(5)])).unwrap();
    assert_eq!(pointers(&credit(&invoice, &selection(&[1, 1])).unwrap_err()), ["/lines/1/item_id"]);
}

/// Every standing there is, with what it allows.
fn standings() -> Vec<(Standing, &'static [Operation])> {
    let order = |state| Standing::Order { state, deadline: Timestamp::UNIX_EPOCH };
    let refusal = Refusal { reason: RefusalReason::InsufficientStock, shortages: vec![] };
    vec![
        (order(OrderState::Pending), &[Operation::Cancel]),
        (order(OrderState::Confirmed), &[Operation::Invoice]),
        (order(OrderState::Invoiced), &[]),
        (order(OrderState::Rejected(refusal)), &[]),
        (order(OrderState::Cancelled(Cancellation::Customer)), &[]),
        (Standing::Invoice { order: item(1) }, &[Operation::CreditNotes]),
        (Standing::CreditNote { invoice: item(1), returned: false }, &[]),
        (Standing::CreditNote { invoice: item(1), returned: true }, &[]),
    ]
}

#[test]
fn a_state_allows_its_own_operations_and_tells_them_with_every_refusal() {
    for (standing, allowed) in standings() {
        for operation in [Operation::Cancel, Operation::Invoice, Operation::CreditNotes] {
            let expected = if allowed.contains(&operation) {
                Ok(())
            } else {
                Err(NotAllowed { kind: standing.kind(), state: standing.state(), allowed })
            };
            assert_eq!(standing.permit(operation), expected, "{operation:?} of {standing:?}");
        }
    }
}

#[test]
fn a_document_as_made_is_the_same_whatever_became_of_it() {
    let contents = price(&selection(&[2]), &quotes(&[euros(5)])).unwrap();
    let made = |standing, version, credited| {
        let mut lines = contents.lines.clone();
        lines[0].credited = credited;
        let head = Head {
            id: item(9),
            number: "ORD-2026-000001".into(),
            customer: "alice".into(),
            standing,
            total: contents.total,
            version,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::from_second(version).unwrap(),
        };
        Document { head, lines }.as_made()
    };
    let order = |state| Standing::Order { state, deadline: Timestamp::UNIX_EPOCH };
    assert_eq!(made(order(OrderState::Pending), 1, 0), made(order(OrderState::Invoiced), 3, 0));
    let note = |returned| Standing::CreditNote { invoice: item(1), returned };
    assert_eq!(made(note(false), 1, 0), made(note(true), 2, 0));
    let invoice = || Standing::Invoice { order: item(1) };
    assert_eq!(made(invoice(), 1, 0), made(invoice(), 4, 2));
}

proptest! {
    #[test]
    fn a_total_is_exact_or_refused(lines in vec((1..=MAX_QUANTITY, 0..=i64::MAX), 1..=MAX_LINES)) {
        let (quantities, prices): (Vec<_>, Vec<_>) = lines.iter().map(|&(quantity, amount)| (quantity, euros(amount))).unzip();
        let exact: i128 = lines.iter().map(|&(quantity, amount)| i128::from(quantity) * i128::from(amount)).sum();
        match price(&selection(&quantities), &quotes(&prices)) {
            Ok(contents) => {
                prop_assert_eq!(i128::from(contents.total.amount), exact);
                prop_assert_eq!(contents.lines.len(), lines.len());
            }
            Err(_) => prop_assert!(exact > i128::from(MAX_AMOUNT)),
        }
    }

    #[test]
    fn small_totals_are_never_refused(lines in vec((1..=1000_i64, 0..=1_000_000_i64), 1..=MAX_LINES)) {
        let (quantities, prices): (Vec<_>, Vec<_>) = lines.iter().map(|&(quantity, amount)| (quantity, euros(amount))).unzip();
        prop_assert!(price(&selection(&quantities), &quotes(&prices)).is_ok());
    }

    /// Whatever sequence of credit notes is asked for, what they take back never exceeds what was invoiced, in pieces
    /// or in money; and one that fits is never refused.
    #[test]
    fn credit_notes_never_exceed_their_invoice(
        invoiced in vec((1..=20_i64, 0..=1000_i64), 1..=5),
        wishes in vec(vec(1..=20_i64, 1..=5), 0..=20),
    ) {
        let (quantities, prices): (Vec<_>, Vec<_>) = invoiced.iter().map(|&(quantity, amount)| (quantity, euros(amount))).unzip();
        let mut invoice = price(&selection(&quantities), &quotes(&prices)).unwrap();
        let mut refunded = 0;
        for wish in wishes {
            let wish = selection(&wish[..wish.len().min(invoice.lines.len())]);
            let fits = wish.lines().iter().zip(&invoice.lines).all(|(wish, line)| wish.quantity <= line.quantity - line.credited);
            let note = credit(&invoice, &wish);
            prop_assert_eq!(note.is_ok(), fits);
            for (line, credited) in invoice.lines.iter_mut().zip(note.iter().flat_map(|note| &note.lines)) {
                prop_assert_eq!(line.item_id, credited.item_id);
                line.credited += credited.quantity;
            }
            refunded += note.map_or(0, |note| note.total.amount);
            prop_assert!(invoice.lines.iter().all(|line| line.credited <= line.quantity));
            prop_assert!(refunded <= invoice.total.amount);
        }
    }
}
