//! The whole table, cell by cell; and what holds for every run of it against a model of item management.

use std::collections::{HashSet, VecDeque};

use outbox::saga::walk;

use super::*;
use crate::domain::RefusalReason;

const STATES: [State; 8] = [
    State::Reserving,
    State::Taking,
    State::Taken,
    State::Releasing,
    State::Released,
    State::Rejected,
    State::Returning,
    State::Returned,
];

fn refusal() -> Refusal {
    Refusal { reason: RefusalReason::InsufficientStock, shortages: vec![] }
}

fn events() -> [Event; 7] {
    [
        Event::Reserved,
        Event::Refused(refusal()),
        Event::Taken,
        Event::Released,
        Event::Returned,
        Event::Cancelled,
        Event::Overdue,
    ]
}

/// An entry as text: the next state and the commands, or `-` for a step that does not exist.
fn entry(outcome: &Result<(State, Vec<Command>), Illegal>) -> String {
    let Ok((next, commands)) = outcome else {
        return "-".to_owned();
    };
    let name = |command: &Command| format!("{command:?}").split('(').next().unwrap_or_default().to_owned();
    std::iter::once(format!("{next:?}")).chain(commands.iter().map(name)).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_state_meets_every_event() {
    #[rustfmt::skip]
    let table = [
        // Reserved              Refused            Taken    Released    Returned          Cancelled                   Overdue
        ["Taking Confirm Take", "Rejected Reject", "-",     "-",        "-",              "Releasing Cancel Release", "Releasing Cancel Release"], // Reserving
        ["Taking Take",         "-",               "Taken", "-",        "-",              "-",                        "Taking Take"],              // Taking
        ["Taking Take",         "-",               "Taken", "-",        "-",              "-",                        "Taken"],                    // Taken
        ["Releasing",           "Released",        "-",     "Released", "-",              "-",                        "Releasing Release"],        // Releasing
        ["Releasing Release",   "Released",        "-",     "Released", "-",              "-",                        "Released"],                 // Released
        ["Releasing Release",   "Rejected",        "-",     "Rejected", "-",              "-",                        "Rejected"],                 // Rejected
        ["-",                   "-",               "-",     "-",        "Returned Close", "-",                        "Returning Return"],         // Returning
        ["-",                   "-",               "-",     "-",        "Returned",       "-",                        "Returned"],                 // Returned
    ];
    let (events, mut reached) = (events(), vec![State::Reserving, State::Returning]);
    let steps = walk::<Process>(&mut reached, &events);
    assert_eq!(steps.len(), STATES.len() * events.len(), "not every state is reached");
    for step in steps {
        let row = STATES.iter().position(|state| state == step.state).unwrap();
        let column = events.iter().position(|event| event == step.event).unwrap();
        assert_eq!(entry(&step.outcome), table[row][column], "{:?} × {:?}", step.state, step.event);
    }
}

#[test]
fn who_ends_an_order_says_why() {
    let ends = |event, command| {
        let (_, commands) = Process::decide(&State::Reserving, &event).unwrap();
        assert_eq!(commands.first(), Some(&command), "{event:?}");
    };
    ends(Event::Overdue, Command::Cancel(Cancellation::Deadline));
    ends(Event::Cancelled, Command::Cancel(Cancellation::Customer));
    ends(Event::Refused(refusal()), Command::Reject(refusal()));
}

#[test]
fn what_is_asked_is_asked_again_with_growing_patience() {
    for state in STATES {
        let asks = matches!(state, State::Taking | State::Releasing | State::Returning);
        assert_eq!(state.patience(0), asks.then_some(Duration::from_secs(30)), "{state:?}");
        let grows = (0..100).map(|repeats| state.patience(repeats)).is_sorted();
        assert!(grows, "{state:?}");
        assert!(state.patience(u32::MAX).is_none_or(|patience| patience == Duration::from_secs(3600)));
        if asks {
            let (next, commands) = Process::decide(&state, &Event::Overdue).unwrap();
            assert_eq!((next, commands.len()), (state, 1), "{state:?}");
        }
    }
}

/// What item management holds for the order, as its own rules have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stock {
    Unknown,
    Held,
    Taken,
    Released,
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ask {
    Reserve,
    Take,
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Reserved,
    Refused,
    Taken,
    Released,
}

/// Both sides and what is under way between them. Messages of one aggregate arrive in order, and each at least once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    saga: State,
    order: &'static str,
    items: Stock,
    asked: VecDeque<Ask>,
    answered: VecDeque<Answer>,
    /// How often time still runs out.
    overdue: u8,
    /// Whether the customer may still call the order off.
    may_cancel: bool,
}

impl World {
    fn saga_meets(&self, event: &Event) -> Self {
        let (saga, commands) =
            Process::decide(&self.saga, event).unwrap_or_else(|illegal| panic!("{illegal} in {self:?}"));
        let mut next = Self { saga, ..self.clone() };
        for command in commands {
            match command {
                Command::Confirm => next.settle("confirmed"),
                Command::Reject(_) => next.settle("rejected"),
                Command::Cancel(_) => next.settle("cancelled"),
                Command::Take => next.asked.push_back(Ask::Take),
                Command::Release => next.asked.push_back(Ask::Release),
                Command::Return | Command::Close => panic!("an order returns nothing: {self:?}"),
            }
        }
        next
    }

    fn settle(&mut self, order: &'static str) {
        assert_eq!(self.order, "pending", "settled twice");
        self.order = order;
    }

    /// Item management does what is asked; a fresh reservation may be held or refused.
    fn items_meet(&self, ask: Ask) -> Vec<Self> {
        let outcomes: &[(Stock, Answer)] = match (ask, self.items) {
            (Ask::Reserve, Stock::Unknown) => &[(Stock::Held, Answer::Reserved), (Stock::Refused, Answer::Refused)],
            (Ask::Reserve, Stock::Held) => &[(Stock::Held, Answer::Reserved)],
            (Ask::Reserve, Stock::Taken) => &[(Stock::Taken, Answer::Reserved)],
            (Ask::Reserve, Stock::Released) => &[(Stock::Released, Answer::Refused)],
            (Ask::Reserve, Stock::Refused) => &[(Stock::Refused, Answer::Refused)],
            (Ask::Take, Stock::Held | Stock::Taken) => &[(Stock::Taken, Answer::Taken)],
            (Ask::Release, Stock::Refused) => &[(Stock::Refused, Answer::Released)],
            (Ask::Release, Stock::Unknown | Stock::Held | Stock::Released) => &[(Stock::Released, Answer::Released)],
            impossible => panic!("{impossible:?} in {self:?}"),
        };
        let met = |&(items, answer)| {
            let mut next = Self { items, ..self.clone() };
            next.answered.push_back(answer);
            next
        };
        outcomes.iter().map(met).collect()
    }

    fn successors(&self) -> Vec<Self> {
        let mut successors = Vec::new();
        if let Some(&ask) = self.asked.front() {
            successors.extend(self.items_meet(ask)); // delivered, and will be once more
            let mut once = self.clone();
            once.asked.pop_front();
            successors.extend(once.items_meet(ask));
        }
        if let Some(answer) = self.answered.front() {
            let mut once = self.clone();
            once.answered.pop_front();
            successors.push(once.saga_meets(&match answer {
                Answer::Reserved => Event::Reserved,
                Answer::Refused => Event::Refused(refusal()),
                Answer::Taken => Event::Taken,
                Answer::Released => Event::Released,
            }));
        }
        if self.overdue > 0 {
            let later = Self { overdue: self.overdue - 1, ..self.clone() };
            successors.push(later.saga_meets(&Event::Overdue));
        }
        if self.may_cancel && self.saga == State::Reserving {
            let asked = Self { may_cancel: false, ..self.clone() };
            successors.push(asked.saga_meets(&Event::Cancelled));
        }
        successors
    }
}

/// Every order of events there can be, with commands delivered twice and time running out at any moment: when nothing is
/// under way any more, the order is confirmed if and only if its stock is taken, and otherwise nothing is held.
#[test]
fn both_sides_always_end_in_agreement() {
    const MOST_UNDER_WAY: usize = 4;
    let mut found = HashSet::new();
    let mut open = vec![World {
        saga: State::Reserving,
        order: "pending",
        items: Stock::Unknown,
        asked: VecDeque::from([Ask::Reserve]),
        answered: VecDeque::new(),
        overdue: 3,
        may_cancel: true,
    }];
    let mut ends = HashSet::new();
    while let Some(world) = open.pop() {
        if world.asked.len() > MOST_UNDER_WAY || world.answered.len() > MOST_UNDER_WAY || !found.insert(world.clone()) {
            continue;
        }
        if world.asked.is_empty() && world.answered.is_empty() {
            match (world.saga, world.order, world.items) {
                (State::Taken, "confirmed", Stock::Taken)
                | (State::Released | State::Rejected, "cancelled" | "rejected", Stock::Released | Stock::Refused) => {}
                torn => panic!("{torn:?}"),
            }
            ends.insert((world.saga, world.order, world.items));
        }
        open.extend(world.successors());
    }
    for end in [
        (State::Taken, "confirmed", Stock::Taken),
        (State::Rejected, "rejected", Stock::Refused),
        (State::Released, "cancelled", Stock::Released),
        (State::Released, "cancelled", Stock::Refused),
    ] {
        assert!(ends.contains(&end), "{end:?} is never reached, only {ends:?}");
    }
}
