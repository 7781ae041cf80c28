//! The whole table, cell by cell; and what holds for every run of it against a model of item management.

use std::collections::HashSet;

use outbox::saga::walk;

use super::*;
use crate::domain::RefusalReason;

const STATES: [State; 11] = [
    State::Reserving,
    State::Taking,
    State::Taken,
    State::Releasing,
    State::Released,
    State::Rejected,
    State::Unfulfilled,
    State::Returning,
    State::Returned,
    State::Unreturned,
    State::Abandoned,
];

fn refusal() -> Refusal {
    Refusal { reason: RefusalReason::InsufficientStock, shortages: vec![] }
}

fn events() -> [Event; 9] {
    [
        Event::Reserved,
        Event::Refused(refusal()),
        Event::Taken,
        Event::Released,
        Event::Returned,
        Event::ReturnRefused,
        Event::Cancelled,
        Event::Overdue,
        Event::Abandoned,
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
        // Reserved              Refused            Taken             Released       Returned          ReturnRefused        Cancelled                   Overdue                     Abandoned
        ["Taking Confirm Take", "Rejected Reject", "-",              "-",           "-",              "-",                 "Releasing Cancel Release", "Releasing Cancel Release", "-"],               // Reserving
        ["Taking Take",         "Unfulfilled",     "Taken",          "Unfulfilled", "-",              "-",                 "-",                        "Taking Take",              "-"],               // Taking
        ["Taking Take",         "Unfulfilled",     "Taken",          "Unfulfilled", "-",              "-",                 "-",                        "Taken",                    "-"],               // Taken
        ["Releasing",           "Released",        "Releasing Undo", "Released",    "-",              "-",                 "-",                        "Releasing Release",        "-"],               // Releasing
        ["Releasing Release",   "Released",        "Releasing Undo", "Released",    "-",              "-",                 "-",                        "Released",                 "-"],               // Released
        ["Releasing Release",   "Rejected",        "Releasing Undo", "Rejected",    "-",              "-",                 "-",                        "Rejected",                 "-"],               // Rejected
        ["Taking Take",         "Unfulfilled",     "Taken",          "Unfulfilled", "-",              "-",                 "-",                        "Taking Take",              "Released Cancel"], // Unfulfilled
        ["-",                   "-",               "-",              "-",           "Returned Close", "Unreturned",        "-",                        "Returning Return",         "Abandoned"],       // Returning
        ["-",                   "-",               "-",              "-",           "Returned",       "Unreturned Reopen", "-",                        "Returned",                 "-"],               // Returned
        ["-",                   "-",               "-",              "-",           "Returned Close", "Unreturned",        "-",                        "Returning Return",         "Abandoned"],       // Unreturned
        ["-",                   "-",               "-",              "-",           "Returned Close", "Abandoned",         "-",                        "Abandoned",                "-"],               // Abandoned
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

/// What an operator is told to be allowed is what the table has a step for, and asks, or ends something.
#[test]
fn what_is_allowed_is_in_the_table() {
    for state in STATES {
        let leads_to = |event: Event| Process::decide(&state, &event).ok();
        let asks = leads_to(Event::Overdue).is_some_and(|(_, commands)| {
            matches!(commands.as_slice(), [Command::Take | Command::Release | Command::Return])
        });
        let possible = [
            (Intervention::Retry, asks),
            (Intervention::Cancel, leads_to(Event::Cancelled).is_some()),
            (Intervention::Abandon, leads_to(Event::Abandoned).is_some()),
        ];
        for (intervention, possible) in possible {
            assert_eq!(state.permit(intervention).is_ok(), possible, "{intervention:?} in {state:?}");
        }
    }
    let refused = |state: State| state.permit(Intervention::Cancel).unwrap_err().to_string();
    assert_eq!(refused(State::Unreturned), "The saga is unreturned, which allows: retry, abandon.");
    assert_eq!(refused(State::Taken), "The saga is taken: it has come to its end.");
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
    Undo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Reserved,
    Refused,
    Taken,
    Released,
}

/// What the database of documents has of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Here {
    saga: State,
    order: &'static str,
    /// How many answers were handled.
    heard: usize,
}

/// What the database of items has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct There {
    stock: Stock,
    /// How many commands were handled.
    done: usize,
}

/// Both sides and the streams between them. The messages of one aggregate arrive in order, and each at least once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    here: Here,
    there: There,
    asked: Vec<Ask>,
    answered: Vec<Answer>,
    /// How often time still runs out.
    overdue: u8,
    /// Whether the customer may still call the order off.
    may_cancel: bool,
    /// A copy of one of the databases, and how often it is put back.
    backup: Option<Backup>,
    disasters: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Backup {
    Here(Here),
    There(There),
}

impl World {
    fn with(overdue: u8, disasters: u8) -> Self {
        Self {
            here: Here { saga: State::Reserving, order: "pending", heard: 0 },
            there: There { stock: Stock::Unknown, done: 0 },
            asked: vec![Ask::Reserve],
            answered: vec![],
            overdue,
            may_cancel: true,
            backup: None,
            disasters,
        }
    }

    fn saga_meets(&self, event: &Event) -> Self {
        let (saga, commands) =
            Process::decide(&self.here.saga, event).unwrap_or_else(|illegal| panic!("{illegal} in {self:?}"));
        let mut next = self.clone();
        next.here.saga = saga;
        for command in commands {
            match command {
                Command::Confirm => next.settle("pending", "confirmed"),
                Command::Reject(_) => next.settle("pending", "rejected"),
                Command::Cancel(Cancellation::Unfulfilled) => next.settle("confirmed", "cancelled"),
                Command::Cancel(_) => next.settle("pending", "cancelled"),
                Command::Take => next.asked.push(Ask::Take),
                Command::Release => next.asked.push(Ask::Release),
                Command::Undo => next.asked.push(Ask::Undo),
                Command::Return | Command::Close | Command::Reopen => panic!("an order returns nothing: {self:?}"),
            }
        }
        next
    }

    fn settle(&mut self, before: &str, order: &'static str) {
        assert_eq!(self.here.order, before, "it became {order}");
        self.here.order = order;
    }

    /// Item management does what is asked; a fresh reservation may be held or refused.
    fn items_meet(&self, ask: Ask) -> Vec<Self> {
        let outcomes: &[(Stock, Answer)] = match (ask, self.there.stock) {
            (Ask::Reserve, Stock::Unknown) => &[(Stock::Held, Answer::Reserved), (Stock::Refused, Answer::Refused)],
            (Ask::Reserve, Stock::Held) => &[(Stock::Held, Answer::Reserved)],
            (Ask::Reserve, Stock::Taken) => &[(Stock::Taken, Answer::Reserved)],
            (Ask::Reserve, Stock::Released) => &[(Stock::Released, Answer::Refused)],
            (Ask::Reserve | Ask::Take, Stock::Refused) => &[(Stock::Refused, Answer::Refused)],
            (Ask::Take, Stock::Held) | (Ask::Take | Ask::Release, Stock::Taken) => &[(Stock::Taken, Answer::Taken)],
            (Ask::Release | Ask::Undo, Stock::Refused) => &[(Stock::Refused, Answer::Released)],
            (Ask::Take | Ask::Release | Ask::Undo, _) => &[(Stock::Released, Answer::Released)],
        };
        let met = |&(stock, answer)| {
            let mut next = self.clone();
            next.there.stock = stock;
            next.answered.push(answer);
            next
        };
        outcomes.iter().map(met).collect()
    }

    fn successors(&self) -> Vec<Self> {
        let mut successors = Vec::new();
        if let Some(&ask) = self.asked.get(self.there.done) {
            let met = self.items_meet(ask);
            if self.disasters == 0 {
                successors.extend(met.clone()); // delivered, and will be once more
            }
            let done = self.there.done + 1;
            successors.extend(met.into_iter().map(|next| Self { there: There { done, ..next.there }, ..next }));
        }
        if let Some(answer) = self.answered.get(self.here.heard) {
            let mut next = self.saga_meets(&match answer {
                Answer::Reserved => Event::Reserved,
                Answer::Refused => Event::Refused(refusal()),
                Answer::Taken => Event::Taken,
                Answer::Released => Event::Released,
            });
            next.here.heard += 1;
            successors.push(next);
        }
        if self.overdue > 0 {
            let later = Self { overdue: self.overdue - 1, ..self.clone() };
            successors.push(later.saga_meets(&Event::Overdue));
        }
        if self.may_cancel && self.here.saga == State::Reserving {
            let asked = Self { may_cancel: false, ..self.clone() };
            successors.push(asked.saga_meets(&Event::Cancelled));
        }
        if self.here.saga.permit(Intervention::Abandon).is_ok() {
            successors.push(self.saga_meets(&Event::Abandoned));
        }
        match self.backup {
            None if self.disasters > 0 => {
                let backups = [Backup::Here(self.here), Backup::There(self.there)];
                successors.extend(backups.map(|backup| Self { backup: Some(backup), ..self.clone() }));
            }
            Some(Backup::Here(here)) if self.disasters > 0 => {
                successors.push(Self { here, disasters: self.disasters - 1, ..self.clone() });
            }
            Some(Backup::There(there)) if self.disasters > 0 => {
                successors.push(Self { there, disasters: self.disasters - 1, ..self.clone() });
            }
            _ => {}
        }
        successors
    }

    /// Without what no side will ever handle again.
    fn without_the_past(mut self) -> Self {
        if self.disasters == 0 {
            self.backup = None;
        }
        let (mut done, mut heard) = (self.there.done, self.here.heard);
        match &mut self.backup {
            Some(Backup::There(there)) => {
                done = done.min(there.done);
                there.done -= done;
            }
            Some(Backup::Here(here)) => {
                heard = heard.min(here.heard);
                here.heard -= heard;
            }
            None => {}
        }
        self.asked.drain(..done);
        self.answered.drain(..heard);
        self.there.done -= done;
        self.here.heard -= heard;
        self
    }

    /// Every world that can come of this one in which nothing is under way any more, with at most so many messages to be handled, or to
    /// be handled again.
    fn ends(self, most: usize) -> HashSet<(State, &'static str, Stock)> {
        let (mut found, mut open, mut ends) = (HashSet::new(), vec![self], HashSet::new());
        while let Some(world) = open.pop() {
            if world.asked.len() > most || world.answered.len() > most || !found.insert(world.clone()) {
                continue;
            }
            if world.asked.len() == world.there.done && world.answered.len() == world.here.heard {
                ends.insert((world.here.saga, world.here.order, world.there.stock));
            }
            open.extend(world.successors().into_iter().map(Self::without_the_past));
        }
        ends
    }
}

fn agrees(&(saga, order, stock): &(State, &'static str, Stock)) -> bool {
    match saga {
        State::Taken => (order, stock) == ("confirmed", Stock::Taken),
        State::Released | State::Rejected => {
            matches!(order, "cancelled" | "rejected") && matches!(stock, Stock::Released | Stock::Refused)
        }
        _ => false,
    }
}

/// Every order of events there can be, with commands delivered twice and time running out at any moment: when nothing is
/// under way any more, the order is confirmed if and only if its stock is taken, and otherwise nothing is held.
#[test]
fn both_sides_always_end_in_agreement() {
    let ends = World::with(3, 0).ends(4);
    assert!(ends.iter().all(agrees), "{ends:?}");
    for end in [
        (State::Taken, "confirmed", Stock::Taken),
        (State::Rejected, "rejected", Stock::Refused),
        (State::Released, "cancelled", Stock::Released),
        (State::Released, "cancelled", Stock::Refused),
    ] {
        assert!(ends.contains(&end), "{end:?} is never reached, only {ends:?}");
    }
}

/// The same when one of the two databases is put back, twice, to what it was at any moment before: they agree, or there is nothing for
/// a confirmed order, and an operator who gives it up makes them agree.
#[test]
fn both_sides_end_in_agreement_after_a_database_was_put_back() {
    let ends = World::with(1, 2).ends(5);
    let unfulfilled = |&(saga, order, stock): &(State, &str, Stock)| {
        (saga, order) == (State::Unfulfilled, "confirmed") && matches!(stock, Stock::Released | Stock::Refused)
    };
    assert!(ends.iter().all(|end| agrees(end) || unfulfilled(end)), "{ends:?}");
    assert!(ends.iter().any(unfulfilled), "an operator is never needed: {ends:?}");
}
